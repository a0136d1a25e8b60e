"""Values of secrets on a worker: reading them, and masking them in all output."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flowyml.core.errors import MissingSecretError, StepFailedError
from flowyml.plan.secrets import variable_of
from flowyml.runtime.lines import OnLine
from flowyml.runtime.tracebacks import described

if TYPE_CHECKING:
    from flowyml.runtime.folding import FoldedLines

__all__ = ["Mask", "ReadSecret", "from_environment", "missing", "secrets_of"]

ReadSecret = Callable[[str], str]
"""From a reference to its value. Raises ``MissingSecretError``."""

SHOWN = "***"
_SHORTEST = 4
"""The fewest masked characters: shorter values would mask half a log."""
_LOGIN = re.compile(r"://([^\s:/@]*):(\S+)@")


def from_environment(reference: str) -> str:
    """Return the value in the environment of this process."""
    if value := os.environ.get(variable_of(reference)):
        return value
    raise MissingSecretError(f"Secret {reference!r} is missing: set {variable_of(reference)}.")


def secrets_of(step: str, names: Mapping[str, str], read: ReadSecret) -> dict[str, str]:
    """Return the values of a step's secrets, by argument or variable.

    Raises ``MissingSecretError`` that names the step.
    """
    values = {}
    for filled, reference in names.items():
        try:
            values[filled] = read(reference)
        except MissingSecretError as error:
            named = MissingSecretError(f"step {step!r}: {error}")
            named.step, named.may_come = step, error.may_come
            raise named from error
    return values


def missing(references: Iterable[str], read: ReadSecret) -> dict[str, str]:
    """Return the references that cannot be read, each with advice."""
    lacking = {}
    for reference in references:
        try:
            read(reference)
        except MissingSecretError as error:
            lacking[reference] = str(error)
    return lacking


class Mask:
    """Replaces values in text by ``***``, in all usual notations: ``folding`` says how it finds them.

    The password of a URL counts as a value too. Values of fewer than four characters are not masked.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._values = frozenset(part for value in values for part in (value, *_logins_of(value)))
        self._folded_lines = _folded_lines_of(self._values)

    def text(self, text: str) -> str:
        """Return a text of several lines without the values, even those broken over lines."""
        return self._folded_lines().line(text)

    def error(self, error: BaseException) -> StepFailedError:
        """Return an error's message without the values, and without its causes, notes and local variables."""
        return StepFailedError(self.text(described(error)))

    def finds(self, value: Any) -> bool:
        """Return whether plain data contains a whole value in one of its strings, keys or numbers.

        The beginning of a value is not one: ``postgresql`` is not the URL of a database.
        """
        if isinstance(value, str):
            lines = self._folded_lines()
            lines.line(value)
            return lines.has_found
        if isinstance(value, bytes):
            return self.finds(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return any(map(self.finds, value)) or any(map(self.finds, value.values()))
        if isinstance(value, list | tuple | set | frozenset):
            return any(map(self.finds, value))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and str(value).removesuffix(".0") in self._values

    def lines(self, on_line: OnLine) -> OnLine:
        """Wrap ``on_line``, so that it gets lines without the values. Each stream is tracked separately."""
        streams = {is_error: self._folded_lines() for is_error in (False, True)}
        return lambda source, line: on_line(source, streams[source == "stderr"].line(line))


@lru_cache(maxsize=8)
def _folded_lines_of(values: frozenset[str]) -> Callable[[], FoldedLines]:
    """Return a factory of searches for these values: a large key takes 0.1 s, and a step asks several times."""
    from flowyml.runtime.folding import FoldedLines, Folding  # most steps have no secret

    whole = {part for value in values if len(part := value.strip()) >= _SHORTEST}
    lines = {part for value in values for line in value.splitlines() if len(part := line.strip()) >= _SHORTEST}
    return partial(FoldedLines, Folding(whole, lines - whole), SHOWN)


def _logins_of(value: str) -> Iterator[str]:
    """Yield what servers echo of a URL: its password, and user and password as basic authentication sends them."""
    for user, password in _LOGIN.findall(value):
        for part in (password, unquote(password), f"{unquote(user)}:{unquote(password)}"):
            if len(password) >= _SHORTEST:
                yield part
