"""Do the oldest releases that pyproject.toml allows still work? Resolve them, install them, run the unit tests.

Newer test tools are used: only what users install goes down to its lowest release.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools/bin/uv"
VENV = ROOT / ".venv/lowest"
TOOLS = ["pytest", "pytest-timeout", "hypothesis", "pandas", "pexpect", "polars", "psutil", "pyarrow"]


def main() -> None:
    python = VENV / "bin" / "python"
    run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, VENV)
    run(UV, "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct", "-e", ".[otlp,prefect]")
    run(UV, "pip", "install", "--quiet", "--python", python, *TOOLS)
    run(python, "-m", "pytest", "-q", "-W", "default", "tests/unit", *sys.argv[1:])


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
