"""Values that a DAG file reads from outside: Variables, connections, the environment, the configuration, the clock."""

from __future__ import annotations

import ast
import datetime
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.api.making import Handler, Making
from flowyml.migration.airflow.reader.library.standard import LIBRARY
from flowyml.migration.airflow.reader.machine import MISSING

_OF_TIMES = frozenset({"add", "subtract", "start_of", "end_of", "replace", "set", "in_timezone", "in_tz", "astimezone"})


def known_folder(world: Making, path: str) -> Any:
    """Return the path for ``DAGS_FOLDER`` or ``AIRFLOW_HOME`` of Airflow's settings; ``MISSING`` for any other name."""
    if path.endswith((".DAGS_FOLDER", ".AIRFLOW_HOME")) and path.startswith("airflow"):
        return _place(world, path.rpartition(".")[2])
    return MISSING


def _place(world: Making, name: str) -> Any:
    """Return the dags folder of the repository, or the folder that contains it."""
    folders = world.machine.files.upwards()
    dags = next((folder for folder in folders if folder.name == "dags"), None)
    return str(folders[-1] if dags is None else dags if name == "DAGS_FOLDER" else dags.parent)


def _variable(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    name = values.hard(arguments.value("key", 0))
    if not isinstance(name, str):
        return world.machine.unknown(node, origin="variable:?")
    given = arguments.get("default_var", 1) or arguments.get("default", 1)
    how = values.hard(arguments.value("deserialize_json", 2))
    if name in world.machine.options.variables:
        value = world.machine.options.variables[name]
        is_text = how is True and isinstance(value, str)
        return LIBRARY["json.loads"].call(world.machine, values.Arguments.of(value), node) if is_text else value
    is_json = how not in (None, False)
    return _outside(world, f"{'variable-json' if is_json else 'variable'}:{name}", given, node)


def _variable_set(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    """Answer ``Variable.setdefault(key, default, description, deserialize_json)``."""
    named = dict(arguments.named)
    for name, each in zip(("key", "default", "description", "deserialize_json"), arguments.positional, strict=False):
        named.setdefault(name, each)
    return _variable(world, function, values.Arguments([], named, arguments.open), node)


def _outside(world: Making, origin: str, given: values.Given | None, node: ast.AST) -> Any:
    """Return a value from outside of the file: its default if it has one, otherwise unknown.

    If it has no default, and the file catches ``KeyError``, that error is raised in the file.
    """
    if given is not None:
        if isinstance(values.hard(given.value), values.Unknown):
            return values.hard(given.value)
        return values.Soft(given.value, origin, world.machine.source(node), world.machine.place(node))
    if world.machine.catches("KeyError"):
        text = f"there is no {origin} here: the import follows what the file does without it"
        world.machine.warn("default-taken", text, node)
        raise values.Raised("KeyError", origin)
    return world.machine.unknown(node, origin=origin)


def environment(world: Making, name: Any, given: values.Given | None, node: ast.AST) -> Any:
    """Return a variable of the environment; ``given`` is its default."""
    if not isinstance(name, str):
        return world.machine.unknown(node, origin="env:?")
    if name in world.machine.environment:
        return world.machine.environment[name]
    if name in ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER"):
        place = _place(world, "AIRFLOW_HOME" if name == "AIRFLOW_HOME" else "DAGS_FOLDER")
        return values.Soft(place, f"env:{name}", world.machine.source(node), world.machine.place(node))
    return _outside(world, f"env:{name}", given, node)


def _getenv(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    given = arguments.get("default", 1) or values.Given(None)
    return environment(world, values.hard(arguments.value("key", 0)), given, node)


def _setdefault(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    """Answer ``os.environ.setdefault``, and store its value."""
    name = values.hard(arguments.value("key", 0))
    found = environment(world, name, arguments.get("default", 1), node)
    set_environment(world, name, found, node)
    return found


def _update(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> None:
    """Store the values of ``os.environ.update``."""
    given = values.hard(arguments.value("other", 0))
    for name, value in given.items() if isinstance(given, dict) else ():
        set_environment(world, values.hard(name), value, node)
    for name, each in arguments.named.items():
        set_environment(world, name, each.value, node)


def set_environment(world: Making, name: Any, value: Any, node: ast.AST) -> None:
    """Store a value that a file puts into the environment; as unknown, if the file may not run that line."""
    if isinstance(name, str):
        machine = world.machine
        machine.environment[name] = machine.unknown(node, origin=f"env:{name}") if machine.context.uncertain else value


def _configuration(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    section, name = (
        str(values.hard(arguments.value(key, index))).lower() for index, key in enumerate(("section", "key"))
    )
    if (section, name) == ("core", "dags_folder"):
        return _place(world, "DAGS_FOLDER")
    origin, given = f"config:{section}.{name}", arguments.get("fallback")
    if given is None:  # Airflow has a value for each of its own options
        return world.machine.unknown(node, origin=origin)
    return _outside(world, origin, given, node)


def _connection(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    name = values.shape(arguments.value("conn_id", 0, ""))
    if world.machine.catches("AirflowNotFoundException"):
        text = f"the connection {name!r} is unknown here: the import follows what the file does without it"
        world.machine.warn("default-taken", text, node)
        raise values.Raised("AirflowNotFoundException", f"connection:{name}")
    world.machine.asked += 1
    return world.machine.unknown(node, origin=f"connection:{name}")


def _clock(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    return _moment(world, None, node)


def _clock_in(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    """Return the moment of ``now(tz)`` and the like, which only a run knows."""
    return _moment(world, _zone(world, arguments.value("tz", 0), node), node)


def _moment(world: Making, zone: datetime.tzinfo | None, node: ast.AST) -> values.Moment:
    found = world.machine.unknown(node)
    return values.Moment(found.source, found.place, "clock", zone=zone)


def _zone(world: Making, given: Any, node: ast.AST) -> datetime.tzinfo | None:
    zone = values.hard(given)
    if isinstance(zone, str):
        zone = LIBRARY["pendulum.timezone"].call(world.machine, values.Arguments.of(zone), node)
    return zone if isinstance(zone, datetime.tzinfo) else None


def of_moment(world: Making, value: values.Moment, name: str, node: ast.AST) -> Any:
    """Return a method of a time: its result is in the same time zone, or in that of its argument."""
    if name not in _OF_TIMES:
        return MISSING
    to_another = name in ("in_timezone", "in_tz", "astimezone")

    def moved(machine: Any, arguments: values.Arguments, where: ast.AST) -> values.Moment:
        given = arguments.value("tz", 0) if to_another else arguments.value("tzinfo", None, value.zone)
        return _moment(world, _zone(world, given, where), where)

    return values.Native(name, moved)


def shifted(world: Making, left: Any, right: Any, node: ast.AST) -> Any:
    """Add a duration to a time, or subtract it."""
    return (
        _moment(world, left.zone, node)
        if isinstance(left, values.Moment) and not isinstance(right, values.Moment)
        else MISSING
    )


def _search_path(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> None:
    """Search modules also in the folder of ``sys.path.append(folder)``, if it is in the root."""
    folder = values.hard(arguments.positional[-1].value) if arguments.positional else None
    if isinstance(folder, (str, PurePosixPath)):
        world.machine.files.search(str(folder))


NAMES: Mapping[str, Handler] = {
    "days_ago": _clock,
    "utcnow": _clock,
    "datetime": lambda world, _, arguments, node: LIBRARY["pendulum.datetime"].call(world.machine, arguments, node),
}
ENDINGS: Mapping[str, Handler] = {
    "Variable.get": _variable,
    "Variable.setdefault": _variable_set,
    "BaseHook.get_connection": _connection,
    "Connection.get_connection_from_secrets": _connection,
    "Connection.get": _connection,
    "os.environ.get": _getenv,
    "os.environ.setdefault": _setdefault,
    "os.environ.update": _update,
    "os.getenv": _getenv,
    "airflow.configuration.conf.get": _configuration,
    "airflow.configuration.get": _configuration,
    "datetime.datetime.now": _clock_in,
    "datetime.datetime.utcnow": _clock,
    "datetime.datetime.today": _clock,
    "datetime.date.today": _clock,
    "pendulum.now": _clock_in,
    "pendulum.today": _clock_in,
    "pendulum.yesterday": _clock_in,
    "time.time": _clock,
    "sys.path.append": _search_path,
    "sys.path.insert": _search_path,
    "site.addsitedir": _search_path,
}
