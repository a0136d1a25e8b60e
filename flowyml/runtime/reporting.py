"""Facts about outputs that a step reports while it runs: ``report(rows=…, auc=…)``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any

__all__ = ["MOST_FACTS", "fact", "report", "reported", "reports"]

MOST_FACTS = 50
"""The largest number of facts of an output; more are left out."""

_LONGEST = 500  # characters of a fact, and a tenth of it of its name
_MOST_READ = 100_000  # characters of a text that are looked through for secrets, before it is cut to that

_reports: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("flowyml_reports", default=None)
_outputs: ContextVar[Collection[str]] = ContextVar("flowyml_outputs", default=())

logger = logging.getLogger("flowyml.runtime")


def report(output: str = "", /, **metadata: Any) -> None:
    """Add facts to the outputs of the calling step: numbers, short strings.

    Engines and ``handle.artifacts()`` show them.

    With the name of an output, they belong to that output, else to all outputs of the step. A later value of a name
    replaces an earlier one. Strings are cut to 500 characters, and an output has at most 50 facts. An unknown output
    name logs a warning. Outside a step, as in a test of its function, and in a thread that the step has started,
    nothing happens.

    >>> report(rows=3)
    """
    if (reports := _reports.get()) is not None:
        if output and output not in _outputs.get():
            has = f"it has {', '.join(map(repr, _outputs.get()))}" if _outputs.get() else "it has none"
            logger.warning("report(): the step has no output %.80r; %s. The facts are not kept.", output, has)
            return
        reports.setdefault(output, {}).update({name: fact(value) for name, value in metadata.items()})


@contextmanager
def reports(outputs: Collection[str]) -> Iterator[None]:
    """Let reports within this block belong to one step with these outputs."""
    token, names = _reports.set({}), _outputs.set(outputs)
    try:
        yield
    finally:
        _outputs.reset(names)
        _reports.reset(token)


def reported(output: str, mask: Callable[[str], str] = str) -> dict[str, Any]:
    """Return the facts of an output of the running step, of bounded size.

    ``mask`` removes secrets from a text before it is cut: it would not find a secret that ends in "…".
    """
    reports = _reports.get() or {}
    facts = {**reports.get("", {}), **reports.get(output, {})}
    return {mask(name)[: _LONGEST // 10]: _masked(value, mask) for name, value in islice(facts.items(), MOST_FACTS)}


def fact(value: Any) -> Any:
    """Return a value as plain JSON: numbers and booleans as they are, anything else as text.

    >>> fact(0.5), fact(float("nan")), fact([1, 2])
    (0.5, 'nan', '[1, 2]')
    """
    try:
        scalar = getattr(value, "item", None)  # a number of numpy's, or a tensor's
        if callable(scalar) and getattr(value, "size", 0) == 1:
            value = scalar()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and -(2**63) < value < 2**63:
            return int.__add__(value, 0)  # without additions of a class of its own
        if isinstance(value, float) and math.isfinite(value):
            return float.__add__(value, 0.0)
        text = value if isinstance(value, str) else str(value)
        return text[:_MOST_READ].replace("\0", "").encode("utf-8", "replace").decode()
    except Exception as error:  # whatever a user's class raises: a fact is not worth a step
        return f"(no text: {type(error).__name__})"


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    """Return a fact without secrets; a number may be one."""
    text = mask(str(value))
    return _cut(text) if isinstance(value, str) or text != str(value) else value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
