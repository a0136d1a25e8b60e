"""The outputs of a run as an engine gives them: references and plain values, read from the store of artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowyml.artifacts import unpack
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError
from flowyml.core.runs import Outputs

__all__ = ["read_outputs"]


def read_outputs(
    run_id: str,
    packed: Mapping[str, Any],
    *stores: Store,
    lost: Mapping[str, str] = {},
    explain: Callable[[str, Any, ArtifactError], str] | None = None,
) -> Outputs:
    """Unpack the outputs of a run from ``stores``, by name.

    Reading one that cannot be had raises ``OutputNotKeptError`` with the reason: that in ``lost`` for those that the
    engine has no more, and for an unreadable artifact what ``explain`` makes of its name, reference and error.
    """
    values: dict[str, Any] = {}
    not_kept = dict(lost)
    for name, value in packed.items():
        try:
            values[name] = unpack(value, *stores)
        except ArtifactError as error:
            not_kept[name] = (
                explain(name, value, error)
                if explain
                else f"Output {name!r} of run {run_id!r} cannot be read here: {error}"
            )
    return Outputs(values, not_kept=not_kept)
