"""The former names of ``flowyml.core.process_identity``, until the adapters use the new ones."""

from __future__ import annotations

from flowyml.core.process_identity import ProcessIdentity as Owner
from flowyml.core.process_identity import born, is_alive, this_process
from flowyml.core.process_identity import identity_of as owner_of

__all__ = ["Owner", "born", "is_alive", "owner_of", "this_process"]
