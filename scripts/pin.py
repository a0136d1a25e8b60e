"""Pin the newest releases that pyproject.toml allows: constraints.txt for every Python, scripts/uv.txt for uv.

The Airflows that tests run live in environments of their own, pinned by requirements/airflow3.txt and airflow2.txt.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each with what speaks with PostgreSQL; 3 with bundles of DAGs in git.
AIRFLOWS = {
    "airflow3": "apache-airflow>=3.3,<3.4\napache-airflow-providers-git\nasyncpg\npsycopg2-binary\n",
    "airflow2": "apache-airflow==2.11.2\nasyncpg\npsycopg2-binary\n",
}
COMPILE = [
    ROOT / ".tools/bin/uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11",
    "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make constraints",
]  # fmt: skip


def main() -> None:
    everything = ["pyproject.toml", "--all-extras", "--group", "dev", "--output-file", "constraints.txt"]
    subprocess.run([*COMPILE, *everything], cwd=ROOT, check=True)
    subprocess.run([*COMPILE, "-", "--output-file", "scripts/uv.txt"], cwd=ROOT, check=True, input="uv\n", text=True)
    for name, wanted in AIRFLOWS.items():
        pins = ["-", "--output-file", f"requirements/{name}.txt"]
        subprocess.run([*COMPILE, *pins], cwd=ROOT, check=True, input=wanted, text=True)


if __name__ == "__main__":
    main()
