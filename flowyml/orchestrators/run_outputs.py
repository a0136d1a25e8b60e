"""Read the outputs of a run from an engine: references and plain values, resolved in the artifact store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from flowyml.artifacts import unpack
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError
from flowyml.core.runs import Outputs

__all__ = ["are_packed", "packed_outputs", "read_outputs"]

_are_packed: ContextVar[bool] = ContextVar("flowyml_outputs_are_packed", default=False)


def packed_outputs(read: Callable[[], Outputs]) -> Outputs:
    """Return what ``read`` reads, with packed values: references are not followed, and nothing is unpickled."""
    token = _are_packed.set(True)
    try:
        return read()
    finally:
        _are_packed.reset(token)


def are_packed() -> bool:
    """Return whether outputs that are read now stay packed."""
    return _are_packed.get()


def read_outputs(
    run_id: str,
    packed: Mapping[str, Any],
    *stores: Store,
    lost: Mapping[str, str] = {},
    loops: Mapping[str, Sequence[str]] = {},
    explain: Callable[[str, Any, ArtifactError], str] | None = None,
) -> Outputs:
    """Unpack the outputs of a run from ``stores``, by name.

    Those in ``loops`` are lists of the items' values, packed one by one; ``loops`` has each loop's ``on_item_error``,
    the outermost first. Reading a missing output raises ``OutputNotKeptError`` with the reason: from ``lost`` if the
    engine no longer has it, or from ``explain``, which gets the name, reference and error of an unreadable artifact.
    """
    if are_packed():
        return Outputs(packed, not_kept=lost)
    values: dict[str, Any] = {}
    not_kept = dict(lost)
    for name, value in packed.items():
        try:
            values[name] = _unpacked(value, loops.get(name, ()), stores)
        except ArtifactError as error:
            not_kept[name] = (
                explain(name, value, error)
                if explain
                else f"Output {name!r} of run {run_id!r} cannot be read here: {error}"
            )
    return Outputs(values, not_kept=not_kept)


def _unpacked(packed: Any, loops: Sequence[str], stores: Sequence[Store]) -> Any:
    if not loops:
        return unpack(packed, *stores)
    if loops[0] == "continue":
        return [(index, _unpacked(value, loops[1:], stores)) for index, value in packed]
    return [_unpacked(value, loops[1:], stores) for value in packed]
