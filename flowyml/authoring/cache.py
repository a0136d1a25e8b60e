"""The argument of ``@step(cache=…)``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from flowyml.authoring.source_lines import adds_source_line
from flowyml.core.errors import ConfigurationError, DefinitionError
from flowyml.core.near_names import did_you_mean

__all__ = ["Cache", "check_cache"]

_NAMES = (
    ("key", r"(?s).*", "a parameter"),  # which are looked up where the step is known
    ("environment", r"[A-Za-z_][A-Za-z0-9_]*", "a variable"),
    ("packages", r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a package"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The caching of a step: ``@step(cache=Cache(ttl="7d"))``.

    ``ttl`` is the time for which a result can be reused: a number of seconds, a ``timedelta``, or text such as
    ``"90s"``, ``"12h"``, ``"7d"``, ``"4w"``; None means without limit. ``key`` names the arguments that the cache key
    includes, by default all. Changing ``version`` invalidates all earlier results. ``environment`` names environment
    variables that the step reads on the worker, and ``packages`` names packages whose version may change the result.

    Raises ``DefinitionError``.

    >>> Cache(ttl="12h").ttl_seconds
    43200.0
    """

    ttl: float | str | timedelta | None = "30d"
    key: str | Sequence[str] | None = None
    version: str | int = ""
    environment: str | Sequence[str] = ()
    packages: str | Sequence[str] = ()

    @adds_source_line
    def __post_init__(self) -> None:
        _ = self.ttl_seconds
        if isinstance(self.version, bool) or not isinstance(self.version, str | int):
            raise DefinitionError(f"Cache(version={self.version!r:.80}): a version is text or a whole number.")
        for option, pattern, what in _NAMES:
            names = getattr(self, option)
            if names is None:
                continue
            names = (names,) if isinstance(names, str) else names
            if not isinstance(names, Iterable):
                raise DefinitionError(f"Cache({option}={names!r:.80}) must be a list of names.")
            names = tuple(names)
            for name in names:
                if not isinstance(name, str) or not re.fullmatch(pattern, name):
                    raise DefinitionError(f"Cache({option}=…): {name!r:.80} is not the name of {what}.")
            object.__setattr__(self, option, tuple(sorted(set(names))))

    @property
    def ttl_seconds(self) -> float | None:
        """The seconds for which a result is valid; None means without limit."""
        ttl: object = self.ttl  # whatever was given
        if ttl is None:
            return None
        seconds = 0.0
        if isinstance(ttl, str):
            from flowyml.core.durations import seconds_of

            with suppress(ConfigurationError):
                seconds = seconds_of(ttl)
        elif isinstance(ttl, timedelta):
            seconds = ttl.total_seconds()
        elif isinstance(ttl, int | float) and not isinstance(ttl, bool):
            seconds = float(ttl)
        if not 0 < seconds < float("inf"):
            raise DefinitionError(
                f"Cache(ttl={ttl!r:.80}) must be a number of seconds above 0, or text such as '90s', '12h', '7d'; None "
                f"means without limit."
            )
        return seconds


def check_cache(cache: object, subject: str, parameters: Collection[str]) -> Cache | bool | None:
    """Check and return the argument of ``@step(cache=…)``. Raises ``DefinitionError``."""
    if cache:
        from flowyml.authoring.imported_files import note_modules

        note_modules()
    if cache is None or isinstance(cache, bool):
        return cache
    if not isinstance(cache, Cache):
        raise DefinitionError(f"{subject}: cache={cache!r:.80} must be True, False or a Cache(ttl='7d', …).")
    for name in cache.key or ():
        if name not in parameters:
            raise DefinitionError(
                f"{subject}: Cache(key=…) names {name!r}, which is not a parameter of the function."
                f"{did_you_mean(name, parameters)}"
            )
    return cache
