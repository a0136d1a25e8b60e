"""Assets, aliases and conditions of them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flowyml.migration.airflow.reader.api.making import Handler, Making
from flowyml.migration.airflow.reader.nodes import Asset, Task
from flowyml.migration.airflow.reader.values import Arguments, Foreign, Function, Given, Native, hard


def _asset(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    first = arguments.value("name", 0) if "name" in arguments.named else arguments.value("uri", 0)
    name, uri = arguments.value("name"), arguments.value("uri", 1 if "name" in arguments.named else None)
    if "uri" not in arguments.named and "name" not in arguments.named:
        name = first
        uri = arguments.value("uri", 1)
    if function.name == "Dataset":
        return Asset("asset", "", _normal_uri(arguments.value("uri", 0)), more=_more(arguments))
    return Asset("asset", "" if name is None else name, "" if uri is None else uri, more=_more(arguments))


def _more(arguments: Arguments) -> tuple[str, ...]:
    given = {name: hard(one.value) for name, one in arguments.named.items() if name not in ("name", "uri")}
    return tuple(name for name, value in given.items() if value not in (None, {}, [], ""))


def _alias(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    return Asset("alias", arguments.value("name", 0))


def _asset_ref(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    if "uri" in arguments.named:
        return Asset("uri", uri=arguments.value("uri"))
    return Asset("name", arguments.value("name", 0))


def _asset_condition(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    kind = "all" if function.name.endswith("All") else "any"
    return condition(kind, *(hard(given.value) for given in arguments.positional))


def _asset_decorator(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    many = function.path.endswith("asset.multi")

    def make(_: Any, given: Arguments, where: ast.AST) -> Any:
        target = given.value("function", 0)
        name = world.name_of(target, node)
        named = {key: one for key, one in arguments.named.items() if key not in ("uri", "outlets", "extra", "group")}
        named["dag_id"] = arguments.get("dag_id") or Given(name)
        dag = world.make_dag(Arguments([], named), node)
        dag.registered = True
        own = Task(None, function=target if isinstance(target, Function) else None, decorator="@asset")
        world.make_task(
            "airflow.sdk.definitions.asset.decorators._AssetMainOperator",
            Arguments([], {"task_id": Given(name), "dag": Given(dag)}),
            node,
            own,
        )
        return Asset("name" if many else "asset", arguments.value("name", None, name), arguments.value("uri", None, ""))

    return Native("asset", make)


def condition(kind: str, *parts: Any) -> Asset:
    """Return a condition of assets; a condition of the same kind within it is flattened, as Airflow does."""
    flat: list[Any] = []
    for part in parts:
        flat += part.parts if isinstance(part, Asset) and part.kind == kind else [part]
    return Asset(kind, parts=tuple(flat))


def _normal_uri(value: Any) -> Any:
    """Return a dataset's URI as Airflow 2 stores it. Source: ``airflow.datasets._sanitize_uri``."""
    text = hard(value)
    if not isinstance(text, str):
        return value
    try:
        parts = urlsplit(text)
    except ValueError:
        return value
    if not parts.scheme and not parts.netloc:
        return value
    query = urlencode(sorted(parse_qsl(parts.query)))
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/") or "/", query=query, fragment=""))


NAMES: Mapping[str, Handler] = {
    "Dataset": _asset,
    "Asset": _asset,
    "AssetAlias": _alias,
    "DatasetAlias": _alias,
    "AssetAll": _asset_condition,
    "AssetAny": _asset_condition,
    "DatasetAll": _asset_condition,
    "DatasetAny": _asset_condition,
    "asset": _asset_decorator,
}
ENDINGS: Mapping[str, Handler] = {
    "Asset.ref": _asset_ref,
    "asset.multi": _asset_decorator,
}
