"""Make environments for the other Pythons of this machine, from 3.11 on: `python scripts/pythons.py` prints them.

They stand in `.venv/pythons`, with what the tests without an engine need, pinned by constraints.txt. One that is there
already, of the same pins, is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import environment

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
WANTED = ["-e", ".", "--group", "unit", "--constraints", "constraints.txt", "--build-constraints", "constraints.txt"]
# A shim of pyenv fails here; a free-threaded Python and PyPy have other packages.
ASK = (
    "import json, sys, sysconfig; usual = sys.implementation.name == 'cpython' and not sysconfig.get_config_var("
    "'Py_GIL_DISABLED'); print(json.dumps([usual, sys.version_info[:3], sys.version_info.releaselevel == 'final']))"
)


def others() -> dict[str, Path]:
    """The newest Python of each minor version from 3.11 on, but for the one that runs this: 3.12 and so on."""
    newest: dict[tuple[int, int], tuple[tuple[int, ...], Path]] = {}
    for python in sorted(candidates()):
        version = usable_version(python)
        if version and version[:2] != sys.version_info[:2] and version > newest.get(version[:2], ((), python))[0]:
            newest[version[:2]] = (version, python)
    return {f"{major}.{minor}": python for (major, minor), (_, python) in sorted(newest.items())}


def candidates() -> set[Path]:
    """Every program called python3.N on the PATH, where Debian has it, and among those of pyenv and uv."""
    folders = [Path(entry) for entry in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]]
    folders += Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob("versions/*/bin")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    folders += Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python").glob("*/bin")
    return {path for folder in folders for path in programs(folder.resolve()) if ROOT not in path.parents}


def programs(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name))


def usable_version(python: Path) -> tuple[int, ...] | None:
    try:
        done = subprocess.run([python, "-I", "-c", ASK], capture_output=True, text=True, check=True, timeout=60)
        usual, version, final = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return tuple(version) if usual and final and tuple(version[:2]) >= OLDEST else None


def make(version: str, base: Path) -> Path:
    """The Python of the environment; ``CalledProcessError`` if it cannot be made here, with uv's own words."""
    folder = ROOT / ".venv" / "pythons" / version
    python, stamp = folder / "bin" / "python", folder / ".pins"
    pins = [ROOT / "constraints.txt", ROOT / "pyproject.toml"]
    wanted = hashlib.sha256(b"".join([str(base).encode(), *(path.read_bytes() for path in pins)])).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    if not environment.UV.exists():
        environment.make_tools()
    for command in (
        [environment.UV, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", base, folder],
        [environment.UV, "pip", "install", "--quiet", "--python", python, *WANTED],
    ):
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    stamp.write_text(wanted)
    return python


def made() -> tuple[dict[str, Path], dict[str, str]]:
    """The environments of the other Pythons, and why others could not be made."""
    pythons, problems = {}, {}
    for version, base in others().items():
        try:
            pythons[version] = make(version, base)
        except (OSError, subprocess.CalledProcessError) as error:
            lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
            problems[version] = f"{base} has no environment for tests: {lines[-1] if lines else error}"
    return pythons, problems


if __name__ == "__main__":
    pythons, problems = made()
    print("\n".join([*map(str, pythons.values()), *problems.values()]))
