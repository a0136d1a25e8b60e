"""References to secrets. A plan holds names of secrets, never a value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from flowyml.core.errors import ConfigurationError, DefinitionError

__all__ = [
    "check_distinct",
    "check_names",
    "check_reference",
    "environment_without_secrets",
    "forget_secrets",
    "slug_of",
    "variable_of",
]

_PREFIX = "FLOWYML_SECRET_"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,252}")


def check_reference(reference: object, subject: str) -> str:
    """Return the reference, if it is one: ``"warehouse/password"``. Raises ``ValueError``."""
    if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
        raise ValueError(
            f"{subject}: {reference!r:.80} does not name a secret. A name has letters, digits and _ . : / @ -, and "
            f"begins with a letter or digit: 'warehouse/password'."
        )
    return reference


def check_names(names: object) -> dict[str, str]:
    """Return a target's names of secrets, by the names in pipelines. Raises ``ConfigurationError``."""
    if not isinstance(names, Mapping):
        raise ConfigurationError(f"secrets={names!r:.80} must be a table: {{'warehouse/password': 'its name there'}}.")
    try:
        pairs = names.items()
        return {check_reference(ours, "secrets"): check_reference(theirs, "secrets") for ours, theirs in pairs}
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def check_distinct(references: Iterable[str]) -> None:
    """Refuse two names that a store could not distinguish. Raises ``DefinitionError``."""
    known: dict[str, str] = {}
    for reference in dict.fromkeys(references):
        for name in (variable_of(reference), slug_of(reference)):
            if known.setdefault(name, reference) != reference:
                raise DefinitionError(
                    f"The secrets {known[name]!r} and {reference!r} would both be stored as {name}. Rename one of "
                    f"them, or give it another name for this target: [orchestrators.NAME.secrets] in flowyml.toml."
                )


def forget_secrets() -> None:
    """Remove the secrets from this process's environment: a step gets only the secrets that it names."""
    for name in os.environ.keys() - environment_without_secrets().keys():
        del os.environ[name]


def environment_without_secrets() -> dict[str, str]:
    """Return the environment for a process of steps.

    A variable that this process removes stays in ``/proc/self/environ``.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}


def slug_of(reference: str) -> str:
    """Return the name of a secret for stores whose names have lower-case letters, digits and dashes.

    >>> slug_of("warehouse/Password_2")
    'warehouse-password-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", reference.lower()).strip("-")


def variable_of(reference: str) -> str:
    """Return the environment variable of a secret, if the environment is the store.

    >>> variable_of("warehouse/password")
    'FLOWYML_SECRET_WAREHOUSE_PASSWORD'
    """
    return _PREFIX + re.sub(r"[^A-Z0-9]+", "_", reference.upper())
