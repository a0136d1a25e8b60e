"""Pin the newest releases that pyproject.toml allows: constraints.txt for every Python, scripts/uv.txt for uv."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = [
    ROOT / ".tools/bin/uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11",
    "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make constraints",
]  # fmt: skip


def main() -> None:
    everything = ["pyproject.toml", "--extra", "prefect", "--group", "dev", "--output-file", "constraints.txt"]
    subprocess.run([*COMPILE, *everything], cwd=ROOT, check=True)
    subprocess.run([*COMPILE, "-", "--output-file", "scripts/uv.txt"], cwd=ROOT, check=True, input="uv\n", text=True)


if __name__ == "__main__":
    main()
