"""Decide who may replace an engine's deployments and schedules of a pipeline's name: one rule for all engines.

A deployment and a schedule record the origin of the pipeline (``Bundle.origin``). A pipeline from the same project and
file replaces them; another pipeline of the same name is refused, unless the user says ``force=True`` or ``--force``.
"""

from __future__ import annotations

import warnings

from flowyml.core.errors import OwnershipError
from flowyml.core.origin import Origin

__all__ = ["check_replaceable"]


def check_replaceable(theirs: Origin | None, ours: Origin | None, what: str, *, force: bool = False) -> None:
    """Raise ``OwnershipError`` if ``what``, such as "the schedule 'train'", belongs to a pipeline other than ours.

    ``found`` is the recorded origin. If it is None, because the record was edited or deleted by hand or the bundle had
    no origin, it may be replaced, with a warning. ``ours`` is the origin of the bundle; a bundle without one cannot
    replace anything that has one.
    """
    if force or theirs == ours:
        return
    what = what[:1].upper() + what[1:]
    if theirs is None:
        warnings.warn(
            f"{what} does not say which project it comes from. It is replaced, and belongs to {ours} from now on.",
            UserWarning,
            stacklevel=2,
        )
        return
    mine = f"this pipeline comes from {ours}" if ours else "this bundle does not say where it comes from"
    raise OwnershipError(
        f"{what} comes from {theirs}; {mine}. Rename this pipeline, or set a `namespace` in the project's "
        f"flowyml.toml. To replace it anyway: force=True, or --force."
    )
