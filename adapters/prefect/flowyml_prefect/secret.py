"""The password of the embedded Prefect: random, in a file that only its owner can read.

Prefect's server asks for it with each call (``PREFECT_SERVER_API_AUTH_STRING``), and its UI once in each browser. It
reaches the server, the worker and the processes of runs in their environment, and stands on no command line.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from flowyml.core.files import write_whole

__all__ = ["make_password", "password", "write_privately"]

_USER = "flowyml"


def password(folder: Path) -> str | None:
    """``user:password`` as Prefect takes it; None where there is none, or where others could have read it."""
    try:
        with (folder / "password").open(encoding="ascii") as file:
            return (file.read().strip() or None) if not os.fstat(file.fileno()).st_mode & 0o077 else None
    except FileNotFoundError:
        return None


def make_password(folder: Path) -> str:
    """A new password, written down in ``folder`` in place of an older one."""
    made = f"{_USER}:{secrets.token_urlsafe(32)}"
    write_privately(folder / "password", made + "\n")
    return made


def write_privately(path: Path, text: str) -> None:
    """Write a file in one go, which only its owner can read from the first moment on."""
    write_whole(path, text.encode(), 0o600)
