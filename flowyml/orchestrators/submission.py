"""Submit a run once: one run for one run id, however many processes submit it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import DefinitionError, EngineError, RunNotFoundError
from flowyml.plan.names import MAX_NAME_LENGTH, check_name, slug

if TYPE_CHECKING:
    from flowyml.core.origin import Origin
    from flowyml.core.runs import Run
    from flowyml.plan.bundle import Bundle

__all__ = ["check_run_id", "check_same_run", "claim_new", "new_run_id", "submit_once"]

logger = logging.getLogger("flowyml.orchestrators")
_ROUNDS = 5


def submit_once(
    bundle: Bundle,
    run_id: str,
    parameters: Mapping[str, Any],
    *,
    find: Callable[[], Run | None],
    create: Callable[[], str | None],
) -> str:
    """Return the job id of the one run of a run id: the existing one, or a new one.

    ``find`` returns the engine's run of that id; None, or ``RunNotFoundError``, if there is none. It is not called
    for an id that ``new_run_id`` has just made. ``create`` creates a run and returns its job id; None if the engine
    refuses that because a run has the id by now: then it is looked for again. What makes ids unique is the engine's.

    Raises what ``check_same_run`` raises, and ``EngineError`` if runs of the id come and go.
    """
    is_new = claim_new(run_id)
    for _ in range(_ROUNDS):
        with suppress(RunNotFoundError):
            if not is_new and (run := find()):
                check_same_run(run, bundle.plan.name, parameters, origin=bundle.origin, code_digest=bundle.code_digest)
                return run.job_id
        if job_id := create():
            return job_id
        is_new = False
    raise EngineError(f"Too many submissions of run {run_id!r} at the same time: none came first. Try again.")


_made: set[str] = set()


def new_run_id(pipeline: str) -> str:
    """Return a unique run id that sorts by time: ``training-20260131-120000-1f3a9c2e``."""
    from datetime import UTC, datetime

    made = f"{slug(pipeline, max_length=40)}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"
    _made.add(made)
    return made


def check_run_id(run_id: object) -> str:
    """Return the run id that a user has chosen. Raises ``DefinitionError``."""
    if not isinstance(run_id, str) or len(run_id) > MAX_NAME_LENGTH:
        raise DefinitionError(f"run_id={run_id!r:.60} must be text of at most {MAX_NAME_LENGTH} characters.")
    return check_name(run_id, "run")


def claim_new(run_id: str) -> bool:
    """Return whether ``new_run_id`` made this id in this process and no run has it, so that no request is needed.

    True only once: from then on, the caller's run has the id.
    """
    is_new = run_id in _made
    _made.discard(run_id)
    return is_new


def check_same_run(
    found: Run,
    pipeline: str,
    parameters: Mapping[str, Any],
    *,
    origin: Origin | None = None,
    code_digest: str | None = None,
) -> None:
    """Check that an existing run with the requested id is the same run; for adapters.

    ``origin`` and ``code_digest`` are those of the bundle; they are compared with those that the engine recorded in
    ``found``, if both are known. Other parameters cannot change the run and cause a warning; so does code that cannot
    be compared.

    Raises ``DefinitionError`` for a run of another pipeline or of other code. The same code from another project causes
    a warning: it has run already.
    """
    again = "Give this run another id, or leave the id out"
    if found.pipeline != pipeline:
        raise DefinitionError(
            f"run_id={found.run_id!r} belongs to a run of {found.pipeline!r}. Give this run of {pipeline!r} another id."
        )
    is_same_code = code_digest is not None and found.code_digest == code_digest
    if not is_same_code and None not in (found.origin, origin) and found.origin != origin:
        raise DefinitionError(
            f"run_id={found.run_id!r} belongs to a run of {pipeline!r} from {found.origin}; this {pipeline!r} comes "
            f"from {origin}. {again}."
        )
    if not is_same_code and None not in (found.code_digest, code_digest):
        raise DefinitionError(
            f"run_id={found.run_id!r} belongs to a run of {pipeline!r} with other code: its steps, data files or "
            f"options have changed since (version {str(found.code_digest)[:8]}, now {str(code_digest)[:8]}). {again}."
        )
    if is_same_code and None not in (found.origin, origin) and found.origin != origin:
        logger.warning(
            "run_id=%r belongs to a run of the same code from %s, which is returned; this %r comes from %s.",
            found.run_id, found.origin, pipeline, origin,
        )  # fmt: skip
    if found.code_digest is None and code_digest is not None:
        logger.warning(
            "run_id=%r belongs to an existing run, which is returned; its code was not recorded. %s.",
            found.run_id, again,
        )  # fmt: skip
    if found.parameters != parameters:
        logger.warning(
            "run_id=%r belongs to a run with the parameters %s. That run is returned, and no run starts with %s: use "
            "another run_id for those.", found.run_id, dict(found.parameters), dict(parameters),
        )  # fmt: skip
