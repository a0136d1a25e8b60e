"""Read targets with pydantic-settings; imported only if there is something to read."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from flowyml.core.credentials import Auth
from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import read_settings
from flowyml.core.tls import Tls
from flowyml.orchestrators.credential_scope import refused_sources, with_own_credentials
from flowyml.orchestrators.registry import declared
from flowyml.orchestrators.target import PREFIX, Target

if TYPE_CHECKING:
    from flowyml.orchestrators.registry import Factory

__all__ = ["checked", "grouped", "read"]

Tables = dict[str, dict[str, Any]]

_GROUPS: Mapping[str, type] = {"auth": Auth, "tls": Tls}
"""Keywords of constructors that are objects, whose own keywords are the settings."""


class Settings(BaseSettings):
    """The form of the variables that FlowyML reads."""

    model_config = SettingsConfigDict(
        env_prefix="FLOWYML_", env_nested_delimiter="__", extra="ignore", hide_input_in_errors=True
    )

    orchestrators: dict[str, dict[str, Any]] = {}


class Environment(EnvSettingsSource):
    """Targets in the environment: ``FLOWYML_ORCHESTRATORS__EU_PROD__URL`` also matches ``[orchestrators.EU-prod]``."""

    def __init__(self, settings_cls: type[BaseSettings], tables: Mapping[str, object] = {}) -> None:
        super().__init__(settings_cls)
        self.spelled = {_plain(name): name for name in tables}

    def __call__(self) -> dict[str, Any]:
        """Return the values, under the names in the file."""
        values = super().__call__()
        tables = values.get("orchestrators", {})
        return {"orchestrators": {self.spelled.get(_plain(name), name): table for name, table in tables.items()}}


def read(path: Path | None) -> dict[str, Target]:
    """Return the targets of a file and of the environment."""
    in_file = _tables(path) if path else {}
    environment = Environment(Settings, in_file)().get("orchestrators", {})
    for name, table in environment.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{_variable(name)}: the variable's name lacks a key: {_variable(name, 'URL')}.")
    merged = _merged(in_file, environment)
    origins = {
        name: {
            key: _variable(name, key) if key in environment.get(name, {}) else _table_name(path, name) for key in table
        }
        for name, table in merged.items()
    }
    found = {}
    for name in merged:
        try:
            target = _target(name, merged, origins, path)
        except ConfigurationError as error:  # the others can be used
            target = Target(name, str(merged[name].get("engine", "")), fault=str(error))
        found[name] = with_own_credentials(target, environment, in_file)
    return found


def _merged(tables: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with the values of others, which win."""
    merged = dict(tables)
    for name, value in above.items():
        below = tables.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def checked(factory: Factory, found: Target) -> dict[str, Any]:
    """Return the target's options, converted to the types of the constructor, of ``Auth`` and of ``Tls``."""
    groups = _groups(factory)
    kinds: list[Callable[..., object]] = [factory, *groups.values()]
    hints = {name: hint for kind in kinds for name, hint in _hints(kind).items()}
    known = [name for kind in kinds for name in _keywords(kind) or () if name not in groups]
    takes_all = _keywords(factory) is None
    values = {}
    for key, value in found.options.items():
        if not takes_all and key not in known:
            has = ", ".join(known) or "nothing"
            raise ConfigurationError(f"{found.origins[key]}: {found.engine!r} has no option {key!r}. It has: {has}.")
        if key not in hints:
            values[key] = value
            continue
        values[key] = _converted(_placed(value, hints[key], found, key), hints[key], found.origins[key], key)
    return values


def grouped(factory: Factory, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with ``auth`` and ``tls`` instead of the keywords of ``Auth`` and ``Tls``.

    Only for a constructor that takes these. Raises ``ConfigurationError`` as they do.
    """
    rest = dict(values)
    for name, kind in _groups(factory).items():
        if options := {key: rest.pop(key) for key in _keywords(kind) or () if key in rest}:
            rest[name] = kind(**options)
    return rest


def _groups(factory: Factory) -> dict[str, type]:
    return {name: kind for name, kind in _GROUPS.items() if name in (_keywords(factory) or ())}


def _placed(value: Any, hint: Any, found: Target, key: str) -> Any:
    """Resolve a relative path in a file from the file's folder, wherever the command runs. URLs are unchanged."""
    is_path = any(get_origin(kind) is os.PathLike for kind in get_args(hint))
    if is_path and isinstance(value, list):
        return [_placed(part, hint, found, key) for part in value]
    if not is_path or not isinstance(value, str) or "://" in value:
        return value
    if found.folder is None or found.origins[key].startswith(PREFIX):
        return value
    return str(found.folder / Path(value).expanduser())


def _target(name: str, tables: Tables, origins: Mapping[str, Mapping[str, str]], path: Path | None) -> Target:
    engines = declared()
    table, origin = dict(tables[name]), dict(origins[name])
    where = origin.pop("engine", next(iter(origin.values()), _table_name(path, name)))
    engine = table.pop("engine", name if name in engines else None)
    if engine is None:
        raise ConfigurationError(f'{where}: say which engine {name!r} runs on: engine = "{engines[-1]}".')
    if name in engines and engine != name:
        raise ConfigurationError(f"{where}: {name!r} is an engine itself and cannot be {engine!r}. Rename the table.")
    if engine not in engines:
        raise ConfigurationError(f"{where}: engine {engine!r} is unknown. Name one of {', '.join(engines)}.")
    if engine != name and engine in tables:
        defaults = {key: value for key, value in tables[engine].items() if key != "engine"}
        table = {**defaults, **table}
        origin = {**origins[engine], **origin}
    target = Target(name, engine, table, origin, folder=path.parent.absolute() if path else None)
    return replace(target, refused=refused_sources(target, path)) if path else target


def _tables(path: Path) -> Tables:
    content = read_settings(path)
    if unknown := sorted(set(content) - {"orchestrators", "namespace", "allow_pickle"}):
        raise ConfigurationError(
            f"{path}: FlowyML knows 'orchestrators', 'namespace' and 'allow_pickle' here, not "
            f"{', '.join(map(repr, unknown))}."
        )
    tables = content.get("orchestrators", {})
    _require_table(tables, path)
    for name, table in tables.items():
        _require_table(table, path, name)
    return {name: {key.replace("-", "_"): value for key, value in table.items()} for name, table in tables.items()}


def _require_table(value: object, path: Path, *names: str) -> None:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{_table_name(path, *names)}: this is a table of keys, not {type(value).__name__}.")


def _table_name(path: Path | None, *names: str) -> str:
    prefix = "tool.flowyml." if path and path.name == "pyproject.toml" else ""
    return f"{path}: [{'.'.join((f'{prefix}orchestrators', *names))}]"


def _variable(*names: str) -> str:
    return "__".join(("FLOWYML_ORCHESTRATORS", *(name.replace("-", "_").upper() for name in names)))


def _plain(name: str) -> str:
    return name.replace("-", "_").lower()


def _keywords(factory: Callable[..., object]) -> list[str] | None:
    """Return the keywords that a constructor takes; None if it takes any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _hints(factory: Callable[..., object]) -> dict[str, Any]:
    """Return the types of a constructor's keywords, as far as they are annotated."""
    try:
        return get_type_hints(inspect.getattr_static(factory, "__init__") if isinstance(factory, type) else factory)
    except Exception:
        return {}


def _converted(value: Any, hint: Any, origin: str, key: str) -> Any:
    """Return the value in the constructor's type. Text from the environment may also be JSON."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except Exception:
        return value
    try:
        return adapter.validate_python(value)
    except (ValidationError, ConfigurationError) as error:
        if isinstance(value, str) and (decoded := _decoded(value)) is not None:
            return _converted(decoded, hint, origin, key)
        raise ConfigurationError(f"{origin}: {key}: {_reason(error)}.") from None


def _reason(error: ValidationError | ConfigurationError) -> str:
    """Return a sentence without its full stop; for an error raised within, without pydantic's preface."""
    if isinstance(error, ConfigurationError):
        return str(error).rstrip(".")
    first = error.errors()[0]
    within = first.get("ctx", {}).get("error")
    return str(within or first["msg"]).rstrip(".")


def _decoded(text: str) -> Any:
    try:
        decoded = json.loads(text)
    except ValueError:
        return None
    return None if isinstance(decoded, str) else decoded
