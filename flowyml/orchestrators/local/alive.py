"""Whether the process of a local run still lives."""

from __future__ import annotations

from flowyml.core.alive import Owner, born, is_alive, owner_of, this_process

__all__ = ["Owner", "born", "is_alive", "owner_of", "this_process"]
