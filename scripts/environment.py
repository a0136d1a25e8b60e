"""Make the environments of this checkout: `python3 scripts/environment.py demo` or `test`.

Needs Python 3.11 and nothing else: it gets uv into `.tools`, and with it what pyproject.toml asks for into `.venv`,
pinned and verified by constraints.txt. Debian packages are installed only when they are missing and we are root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
UV = TOOLS / "bin" / "uv"

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
KINDS = {
    "demo": ["-e", ".[prefect]", "--group", "examples"],
    "test": ["-e", f".[{','.join(EXTRAS)}]", "--group", "dev"],
}
# Programs that tests start for real, and the Debian packages that hold them.
PROGRAMS = {
    "demo": {},
    "test": {
        "chromium": "chromium",
        "prometheus": "prometheus",
        "prometheus-pushgateway": "prometheus-pushgateway",
        "psql": "postgresql",
        "rsvg-convert": "librsvg2-bin",
        "victoria-metrics": "victoria-metrics",
    },
}


def main(kind: str) -> None:
    os.chdir(ROOT)
    if not UV.exists():
        say("Fetching uv …")
        make_tools()
    if not (VENV / "bin" / "python").exists():
        run(UV, "venv", "--quiet", "--seed", "--python", optimized(), VENV)
    say(f"Installing what the {kind} needs into .venv (a minute or two the first time) …")
    run(UV, "pip", "install", "--quiet", "--python", VENV / "bin" / "python", *KINDS[kind],
        "--constraints", "constraints.txt", "--build-constraints", "constraints.txt")  # fmt: skip
    for program, package in PROGRAMS[kind].items():
        if shutil.which(program) is None and not install_debian(package):
            say(f"{program} is not installed, so the tests that start it fail. Debian: apt install {package}")
    (VENV / f".{kind}").touch()


def make_tools() -> None:
    """A virtual environment with uv in it. Debian splits venv off Python: add the package when it is missing."""
    if not venv_works():
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if not install_debian(package) and not install_debian("python3-venv"):
            fail(f"{sys.executable} -m venv does not work. Install it (Debian, Ubuntu: apt install python3-venv).")
        if not venv_works():
            fail(f"{sys.executable} -m venv still does not work after installing {package}.")
    run(TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--require-hashes", "--requirement", "scripts/uv.txt")  # fmt: skip


def optimized() -> str:
    """This Python, or Debian's of the same version where this one was built without optimizations, as pyenv builds them
    unless asked: decision 20 has what that saves.
    """
    debian = Path(f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") or not debian.exists():
        return sys.executable
    return str(debian)


def venv_works() -> bool:
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], capture_output=True, text=True, check=False)
    return done.returncode == 0


def install_debian(package: str) -> bool:
    """Install a Debian package without starting its services. False when that is not possible here."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    say(f"Installing Debian's {package} …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", package]
    return any(
        quietly(command, environment) and command is install
        for command in (install, ["apt-get", "update", "--quiet=2"], install)
    )


def quietly(command: list[str], environment: dict[str, str]) -> bool:
    done = subprocess.run(command, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def run(*command: str | Path) -> None:
    """Run a command; when it fails, so do we, and its own words are the explanation."""
    # A virtual environment that is active in the caller's shell is none of our business.
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run([str(part) for part in command], env=environment, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        fail(f"This command failed: {' '.join(map(str, command))}")


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str) -> None:
    sys.exit(f"make: {text}")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  # the user's python3 may be any
        fail(f"FlowyML needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Use make PYTHON=…")
    main(sys.argv[1])
