"""The retry policy of a step: number of attempts, delays, and errors to retry after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flowyml.core.errors import DefinitionError, FlowymlError, MissingSecretError, ParameterError, StepFailedError

__all__ = ["OrchestratorRetryPolicy", "error_names"]

# Python's aliases of a class, as people write them (source: Built-in Exceptions, OSError).
_ALIASES = {"IOError": "OSError", "EnvironmentError": "OSError", "socket.error": "OSError", "select.error": "OSError"}
_FINAL = frozenset({ParameterError.__name__, FlowymlError.__name__})  # a user's class may have the first name alone
_OUT_OF_MEMORY = frozenset({"memory", "outofmemory"})


@dataclass(frozen=True, slots=True)
class OrchestratorRetryPolicy:
    """Attempts with exponential backoff, compiled to the engine's native retries of the failed step.

    ``max_attempts`` includes the first try: 3 means up to two retries. ``retryable_errors`` names exception classes
    (``"TimeoutError"``, ``"Timeout"`` or the class itself), matched against the class of the error and its bases;
    ``"OOM"`` means ``MemoryError`` and its subclasses. Without it, every error is retried except FlowyML's
    ``ParameterError`` and a missing secret, which never are: all attempts of a run find the same.

    >>> policy = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=10, backoff_multiplier=2.0)
    >>> policy.delays
    (10, 20.0)
    >>> OrchestratorRetryPolicy(retryable_errors=["Timeout"]).retries_on(TimeoutError())
    True
    """

    max_attempts: int = 3
    initial_delay_seconds: float = 1
    backoff_multiplier: float = 2.0
    retryable_errors: Sequence[str | type[BaseException]] | None = None
    max_delay_seconds: float = 3600

    def __post_init__(self) -> None:
        _require(
            type(self.max_attempts) is int and self.max_attempts >= 1,
            "max_attempts",
            "a whole number from 1",
        )
        for name in ("initial_delay_seconds", "max_delay_seconds"):
            _require(_is_number(getattr(self, name)) and getattr(self, name) >= 0, name, "seconds, 0 or more")
        _require(
            _is_number(self.backoff_multiplier) and self.backoff_multiplier >= 1, "backoff_multiplier", "at least 1"
        )
        if self.retryable_errors is not None:
            if isinstance(self.retryable_errors, str):
                raise DefinitionError("retryable_errors is a list of names, such as ['OOM', 'Timeout'].")
            names = tuple(
                _ALIASES.get(error, error) if isinstance(error, str) else error.__name__
                for error in self.retryable_errors
            )
            object.__setattr__(self, "retryable_errors", names)

    @property
    def delays(self) -> tuple[float, ...]:
        """Seconds to wait before each retry."""
        return tuple(min(self._grown(retry), self.max_delay_seconds) for retry in range(self.max_attempts - 1))

    def with_delays(self, usual: float, least: float) -> OrchestratorRetryPolicy:
        """Return the same policy with ``usual`` seconds before each retry if it waits for none, but at ``least`` these.

        >>> policy = OrchestratorRetryPolicy(initial_delay_seconds=0)
        >>> policy.with_delays(300, 30).delays, policy.with_delays(0, 30).delays
        ((300, 300), (30, 30))
        """
        if self.initial_delay_seconds:
            delay, longest, factor = self.initial_delay_seconds, self.max_delay_seconds, self.backoff_multiplier
        else:
            delay, longest, factor = usual, max(self.max_delay_seconds, usual), 1
        return replace(
            self,
            initial_delay_seconds=max(delay, least),
            max_delay_seconds=max(longest, least),
            backoff_multiplier=factor,
        )

    def _grown(self, retry: int) -> float:
        """Return the delay before the limit is applied."""
        try:
            return self.initial_delay_seconds * self.backoff_multiplier**retry if retry else self.initial_delay_seconds
        except OverflowError:
            return float("inf") if self.initial_delay_seconds else 0

    def retries_on(self, error: BaseException) -> bool:
        """Return True if an error of this class is retried; for a ``StepFailedError``, the class that it names."""
        if isinstance(error, MissingSecretError) and not error.may_come:
            return False
        names = error.names if isinstance(error, StepFailedError) and error.names else error_names(error)
        return self.retries_on_names(names)

    def delay_after(self, error: BaseException, attempt: int) -> float | None:
        """Return the seconds until the next attempt, when ``attempt``, counted from 1, has failed with this error.

        None if none follows.

        >>> OrchestratorRetryPolicy(max_attempts=3).delay_after(ValueError(), 2)
        2.0
        """
        return self.delays[attempt - 1] if attempt < self.max_attempts and self.retries_on(error) else None

    def retries_on_names(self, names: Iterable[str]) -> bool:
        """Return the same for an error of which only ``error_names`` are known, from another process."""
        names = set(names)
        if names >= _FINAL:
            return False
        if self.retryable_errors is None:
            return True
        plain = {_plain(name) for name in names}
        if plain & _OUT_OF_MEMORY:
            plain.add("oom")
        return any(_plain(str(error)) in plain for error in self.retryable_errors)


def error_names(error: BaseException) -> tuple[str, ...]:
    """Return the names of an error's class and its bases, nearest first, as in retry policies.

    >>> error_names(ConnectionResetError())
    ('ConnectionResetError', 'ConnectionError', 'OSError', 'Exception')
    """
    return tuple(cls.__name__ for cls in type(error).__mro__ if cls not in (BaseException, object))


def _plain(name: str) -> str:
    short = name.rpartition(".")[2].lower()
    for suffix in ("error", "exception"):
        if short != suffix:
            short = short.removesuffix(suffix)
    return short


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float("-inf") < value < float("inf")


def _require(condition: bool, name: str, expected: str) -> None:
    if not condition:
        raise DefinitionError(f"OrchestratorRetryPolicy: {name} must be {expected}.")
