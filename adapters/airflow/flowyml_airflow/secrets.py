"""Read secrets of steps from Airflow's connections and variables, in the process of a task.

``warehouse/password`` is the field ``password`` of connection ``warehouse``: fields are ``uri``, ``host``, ``login``,
``password``, ``schema``, ``port`` and ``extra.KEY``. Any other name is that of a variable. ``conn:warehouse.password``
and ``var:NAME`` are the full forms. Airflow's secrets backends are used as for every connection and variable (source:
airflow.apache.org/docs/apache-airflow/stable/security/secrets/secrets-backend/index.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from flowyml.core.errors import MissingSecretError
from flowyml.runtime.secrets import ReadSecret

__all__ = ["Place", "masked", "place_of", "read_ahead"]

_FIELDS = ("uri", "host", "login", "password", "schema", "port")


class Place(NamedTuple):
    """The address of a secret: a field of a connection or, with an empty field, a variable."""

    name: str
    field: str = ""

    def __str__(self) -> str:
        return f"field {self.field!r} of connection {self.name!r}" if self.field else f"variable {self.name!r}"


def place_of(reference: str) -> Place:
    """Parse a reference to a secret.

    >>> place_of("warehouse/password"), place_of("api/token")
    (Place(name='warehouse', field='password'), Place(name='api/token', field=''))
    """
    kind, colon, rest = reference.partition(":")
    if colon and kind == "var":
        return Place(rest)
    if colon and kind == "conn":
        name, _, field = rest.partition(".extra.") if ".extra." in rest else rest.rpartition(".")
        return Place(name or field, f"extra.{field}" if ".extra." in rest else field if name else "uri")
    name, _, field = reference.partition("/")
    is_field = field in _FIELDS or (field.startswith("extra.") and len(field) > len("extra."))
    return Place(name, field) if is_field else Place(reference)


def read_ahead(references: Iterable[str]) -> ReadSecret:
    """Read these secrets now; return a function that looks them up later.

    In Airflow 3 a task has one line to its supervisor, which a process that is forked from the task shares. So this
    process reads before it forks.
    """
    secrets: dict[str, str | MissingSecretError] = {}
    for reference in references:
        try:
            secrets[reference] = _read(reference)
        except MissingSecretError as error:
            secrets[reference] = error

    def read(reference: str) -> str:
        value = secrets[reference]
        if isinstance(value, MissingSecretError):
            raise value
        return value

    return read


def _read(reference: str) -> str:
    place = place_of(reference)
    try:
        value = _of_connection(place) if place.field else _sdk("Variable").get(place.name)
    except Exception as error:  # each Airflow has its own error for a missing one: KeyError, AirflowNotFoundException …
        lacking = MissingSecretError(_missing(reference, place, f" {type(error).__name__}"))
        lacking.may_come = True  # Airflow raises the same while a secrets backend does not answer
        raise lacking from None
    if value in (None, ""):
        raise MissingSecretError(_missing(reference, place))
    return value if isinstance(value, str) else json.dumps(value)


def _missing(reference: str, place: Place, why: str = "") -> str:
    return (
        f"Secret {reference!r} is missing: Airflow gave no {place}.{f' It raised{why}.' if why else ''} Create it in "
        f"Airflow, or give the secret another name for this target: [orchestrators.NAME.secrets] in flowyml.toml."
    )


def _of_connection(place: Place) -> Any:
    connection = _sdk("Connection").get(place.name)
    if place.field == "uri":
        return connection.get_uri()
    if place.field.startswith("extra."):
        return connection.extra_dejson.get(place.field.removeprefix("extra."))
    return getattr(connection, place.field) if place.field in _FIELDS else None


def _sdk(name: str) -> Any:
    """Return Airflow 3's class of that name, or Airflow 2's with the same interface."""
    try:
        return getattr(import_module("airflow.sdk"), name)
    except ImportError:
        return _Airflow2Connections if name == "Connection" else getattr(import_module("airflow.models"), name)


class _Airflow2Connections:
    @staticmethod
    def get(name: str) -> Any:
        return import_module("airflow.hooks.base").BaseHook.get_connection(name)


def masked(text: str) -> str:
    """Remove from a text what Airflow keeps secret in this process, as it does in logs: an XCom is shown as it is."""
    for module in ("airflow.sdk.log", "airflow.utils.log.secrets_masker"):
        with suppress(ImportError, AttributeError, RuntimeError):  # the last without Airflow's own logging, on 2.11
            return str(import_module(module).redact(text))
    return text
