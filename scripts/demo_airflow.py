"""The example on a real Airflow 3.3, which is started for it on 127.0.0.1 and ended after it: `make demo ON=airflow`.

Airflow has an environment of its own, as in real life: it takes a minute or two to install the first time. The steps
run in this project's Python, since Airflow's has no scikit-learn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.engines.airflow import Airflow, airflow3  # noqa: E402


def main(arguments: list[str]) -> int:
    print("Starting Airflow 3.3 (its first start takes a while) …", flush=True)
    with tempfile.TemporaryDirectory(prefix="flowyml-airflow-") as folder, airflow3(Path(folder)) as airflow:
        print(f"Airflow is at {airflow.url}: user {airflow.username}, password {airflow.password}", flush=True)
        command = [sys.executable, str(ROOT / "examples/train_classifier.py"), "--on", "airflow", *arguments]
        code = subprocess.run(command, env={**os.environ, **settings(airflow, folder)}, check=False).returncode
        if sys.stdin.isatty():
            input("Look at it in the browser; Enter ends this Airflow. ")
    return code


def settings(airflow: Airflow, folder: str) -> dict[str, str]:
    """The environment variables that name this Airflow as the target `airflow`."""
    values = {
        "URL": airflow.url, "USERNAME": airflow.username, "PASSWORD": airflow.password,
        "DAGS_FOLDER": str(airflow.dags_folder), "PYTHON": sys.executable, "ARTIFACTS": f"{folder}/artifacts",
    }  # fmt: skip
    return {f"FLOWYML_ORCHESTRATORS__AIRFLOW__{name}": value for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
