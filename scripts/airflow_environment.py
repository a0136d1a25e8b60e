"""Make the environments that Airflow runs in: `python3 scripts/airflow_environment.py 3 2`; prints their Pythons.

Airflow's dependencies cannot share an environment with Prefect's, so each Airflow has its own: `.venv-airflow3` and
`.venv-airflow2`, pinned with hashes by requirements/. One that is there already, of the same pins, is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment

ROOT = Path(__file__).resolve().parent.parent
# The Pythons that each Airflow runs on and FlowyML's bundles too, as first and last minor version.
PYTHONS = {"3": (11, 14), "2": (11, 12)}


def main(versions: list[str]) -> None:
    os.chdir(ROOT)
    for version in versions:
        print(make(version))


def make(version: str) -> Path:
    """The Python of an environment that holds this Airflow."""
    pins = ROOT / f"requirements/airflow{version}.txt"
    folder = ROOT / f".venv-airflow{version}"
    python = folder / "bin" / "python"
    stamp, wanted = folder / ".pins", hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    print(f"Installing Airflow {version} into {folder.name} (a minute or two, 1 GB) …", file=sys.stderr, flush=True)
    if not environment.UV.exists():
        environment.make_tools()
    environment.run(environment.UV, "venv", "--quiet", "--clear", "--python", find_python(*PYTHONS[version]), folder)
    environment.run(environment.UV, "pip", "install", "--quiet", "--require-hashes", "--python", python, "-r", pins)
    stamp.write_text(wanted)
    return python


def find_python(first: int, last: int) -> str:
    """A Python 3 whose minor version lies in a range: this one, one on the PATH, or one of pyenv's."""
    if sys.version_info[0] == 3 and first <= sys.version_info[1] <= last:
        return environment.optimized()
    for minor in range(last, first - 1, -1):
        found = shutil.which(f"python3.{minor}") or next(pyenv_pythons(minor), None)
        if found and works(found):
            return str(found)
    environment.fail(f"No Python from 3.{first} to 3.{last} was found, and this Airflow runs on no other.")
    raise SystemExit


def pyenv_pythons(minor: int):
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from home.glob(f"versions/3.{minor}.*/bin/python3")


def works(python: str | Path) -> bool:
    """False for a pyenv shim whose Python is not installed."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
