"""Values of secrets on a worker: where they come from, and how they are kept out of all that is shown."""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from json import dumps
from typing import Any
from urllib.parse import quote, quote_plus

from flowyml.core.errors import MissingSecretError
from flowyml.plan.secrets import variable_of
from flowyml.runtime.lines import OnLine

__all__ = ["Mask", "ReadSecret", "from_environment", "missing", "secrets_of"]

ReadSecret = Callable[[str], str]
"""From a reference to its value. Raises ``MissingSecretError``."""

SHOWN = "***"
_SHORTEST = 4
"""Characters of what is masked: shorter values, and shorter pieces at the end of a line, would mask half a log."""


def from_environment(reference: str) -> str:
    """The value that stands in the environment of this process."""
    if value := os.environ.get(variable_of(reference)):
        return value
    raise MissingSecretError(f"There is no secret {reference!r}: set {variable_of(reference)}.")


def secrets_of(step: str, names: Mapping[str, str], read: ReadSecret) -> dict[str, str]:
    """The values of a step's secrets, by argument or variable. Raises ``MissingSecretError`` that names the step."""
    values = {}
    for filled, reference in names.items():
        try:
            values[filled] = read(reference)
        except MissingSecretError as error:
            named = MissingSecretError(f"step {step!r}: {error}")
            named.step = step
            raise named from error
    return values


def missing(references: Iterable[str], read: ReadSecret) -> dict[str, str]:
    """Those that cannot be read, each with what to do."""
    lacking = {}
    for reference in references:
        try:
            read(reference)
        except MissingSecretError as error:
            lacking[reference] = str(error)
    return lacking


class Mask:
    """Replaces values in text by ``***``: as they are, in JSON, in ``repr``, in base64 and in URL quoting.

    Values of fewer than four characters are left.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms)) or r"(?!)")

    def text(self, text: str) -> str:
        """A text of several lines without the values, also where one is broken over lines."""
        follow = _Lines(self)
        return "\n".join(map(follow.line, self._pattern.sub(SHOWN, text).split("\n")))

    def error(self, error: BaseException) -> BaseException:
        """The same error, or one with the same words where these hold a value."""
        from flowyml.core.errors import StepFailedError

        shown = str(error)
        masked = self.text(shown)
        return error if masked == shown else StepFailedError(f"{type(error).__name__}: {masked}")

    def finds(self, value: Any) -> bool:
        """Whether plain JSON holds a value in one of its texts or keys."""
        if isinstance(value, str):
            return self._pattern.search(value) is not None
        if isinstance(value, Mapping):
            return any(map(self.finds, value)) or any(map(self.finds, value.values()))
        return isinstance(value, Collection) and any(map(self.finds, value))

    def lines(self, on_line: OnLine) -> OnLine:
        """Takes lines as they are printed, and hands them on without the values. Each stream is followed by itself."""
        streams: dict[bool, _Lines] = {}

        def take(source: str, line: str) -> None:
            on_line(source, streams.setdefault(source == "stderr", _Lines(self)).line(line))

        return take


class _Lines:
    """Follows a value that is broken over lines: what begins it at the end of one goes on at the start of the next."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._begun: list[str] = []
        """What would go on with a value that the last line may have begun."""

    def line(self, line: str) -> str:
        """The line without values."""
        indent = line[: len(line) - len(line.lstrip())]
        shown, left, still = line[len(indent) :], "", []
        for rest in self._begun:
            if rest.startswith(shown) and len(rest) > len(shown) > 0:
                still.append(rest[len(shown) :])
                left = SHOWN if len(shown) >= _SHORTEST else left
            elif len(rest) >= _SHORTEST and shown.startswith(rest):
                shown = SHOWN + shown[len(rest) :]
        if left:
            self._begun = still
            return indent + left
        shown, begun = self._ended(self._mask._pattern.sub(SHOWN, shown))
        self._begun = [*still, *begun]
        return indent + shown

    def _ended(self, line: str) -> tuple[str, list[str]]:
        """The line with what may begin a value at its end masked, and what would go on with it."""
        begun, longest = [], 0
        for form in self._mask._forms:
            for length in range(min(len(form) - 1, len(line)), 0, -1):
                if line.endswith(form[:length]):
                    begun.append(form[length:])
                    longest = max(longest, length)
                    break
        return (line[:-longest] + SHOWN if longest >= _SHORTEST else line), begun


def _forms(value: str) -> Iterator[str]:
    """How a value, or a line of it, may be written. What is shorter than four characters is left out."""
    for part in {value, *value.splitlines()}:
        plain = part.strip()
        data = plain.encode("utf-8", "surrogatepass")
        if len(plain) < _SHORTEST:
            continue
        yield plain
        yield from (dumps(plain)[1:-1], dumps(plain, ensure_ascii=False)[1:-1], repr(plain)[1:-1])
        yield from (quote(data, safe=""), quote(data), quote_plus(data))
        yield from (form for form in _in_base64(data) if len(form) >= _SHORTEST)


def _in_base64(data: bytes) -> Iterator[str]:
    """The characters that stand for these bytes, wherever within encoded bytes they begin."""
    for encode in (b64encode, urlsafe_b64encode):
        for before, skipped in ((0, 0), (1, 2), (2, 3)):
            coded = encode(b"\0" * before + data).decode()[skipped:]
            yield coded  # nothing follows them
            yield coded.rstrip("=")[: -1 if coded.endswith("=") else None]
