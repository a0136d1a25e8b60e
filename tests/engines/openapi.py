"""The OpenAPI document of a server as a contract: calls are checked against it, and answered from it.

``Contract.answer`` refuses a call with a path, a parameter or a field of the body that the document does not have. What
it answers with is made of the document's own schemas, and refuses to be asked for a field that they do not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = ["Answered", "Contract"]

Json = Mapping[str, Any]


class Answered(dict[str, Any]):
    """An object that a server would give. ``named`` is the schema's name; ``other`` are fields that it may lack."""

    def __init__(self, content: Json, named: str, contract: Contract, is_open: bool) -> None:
        super().__init__(content)
        self.named, self.contract, self.is_open = named, contract, is_open

    def _check(self, name: str) -> None:
        if self.is_open:
            return
        self.contract.read.add((self.named, name))
        if name not in self:
            assert name in self.contract.elsewhere, f"{self.contract.title}: {self.named} has no field {name!r}"

    def __getitem__(self, name: str) -> Any:
        self._check(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._check(name)
        return super().get(name, default)


@dataclass
class Contract:
    """A document, and what is known of its server beyond it.

    ``values`` are those of fields in place of made-up ones, by ``field`` or ``Schema.field``. ``elsewhere`` are fields
    that only another version has; ``ignored`` are parameters that go along although the server does not know them.
    ``read`` has gathered which field of which schema was read.
    """

    title: str
    document: Json
    root: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    ignored: Mapping[str, Any] = field(default_factory=dict)
    read: set[tuple[str, str]] = field(default_factory=set)
    called: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, params: Json, body: Json | None) -> Any:
        """What the server would answer to this call. Raises ``AssertionError`` for one that it does not take."""
        template, item = self._operation(method, path)
        who = f"{self.title}: {method} {template}"
        self.called.add(f"{method} {template}")
        known = {found["name"]: found for found in self._parameters(template, item) if found["in"] == "query"}
        for name, value in params.items():
            if name not in known and self.ignored.get(name) != value:
                raise AssertionError(f"{who} has no parameter {name!r}")
            self._check_value(f"{who}: parameter {name!r}", known.get(name, {}).get("schema", {}), value)
        if body is not None:
            self._check_body(who, self._content(self._whole(item["requestBody"])), body)
        success = next(found for status, found in item["responses"].items() if str(status).startswith("2"))
        return self._made(self._content(self._whole(success)), template)

    def _operation(self, method: str, path: str) -> tuple[str, Json]:
        for template, pattern in self._patterns.items():
            item = self.document["paths"][template]
            if pattern.fullmatch(path) and method.lower() in item:
                return template, item[method.lower()]
        raise AssertionError(f"{self.title} has no {method} {path}")

    @cached_property
    def _patterns(self) -> Mapping[str, re.Pattern[str]]:
        """Templates with fewest places to fill in first: a path that is spelt out wins."""
        templates = sorted(self.document["paths"], key=lambda template: template.count("{"))
        return {
            template: re.compile(re.escape(self.root) + re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template)))
            for template in templates
        }

    def _parameters(self, template: str, item: Json) -> Iterator[Json]:
        for found in (*self.document["paths"][template].get("parameters", ()), *item.get("parameters", ())):
            yield self._whole(found)

    @staticmethod
    def _content(described: Json) -> Json:
        content: Json = described.get("content", {}).get("application/json", {}).get("schema", {})
        return content

    def _check_body(self, who: str, schema: Json, body: Json) -> None:
        whole = self._whole(schema)
        fields = whole.get("properties", {})
        for name in body.keys() - fields.keys():
            raise AssertionError(f"{who}: the body has no field {name!r}")
        for name in set(whole.get("required", ())) - body.keys():
            raise AssertionError(f"{who}: the body wants {name!r}")
        for name, value in body.items():
            self._check_value(f"{who}: field {name!r}", fields[name], value)

    def _check_value(self, who: str, schema: Json, value: Any) -> None:
        """Only what has a fixed list of words."""
        words = self._whole(schema).get("enum")
        if words and value not in words:
            raise AssertionError(f"{who} is {value!r}, which is none of {words}")

    def _whole(self, schema: Json) -> Json:
        """A schema without references; of a choice, the first that is not null."""
        if "$ref" in schema:
            found: Any = self.document
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                found = found[part]
            return self._whole(found)
        if "allOf" in schema:
            parts = [self._whole(part) for part in schema["allOf"]]
            properties = {name: item for part in parts for name, item in part.get("properties", {}).items()}
            required = [name for part in parts for name in part.get("required", ())]
            return {**parts[0], **schema, "properties": properties, "required": required}
        for choice in schema.get("anyOf", schema.get("oneOf", ())):
            if choice.get("type") != "null":
                return self._whole(choice)
        return schema

    def _made(self, schema: Json, name: str) -> Any:
        """A value as a schema describes it."""
        whole = self._whole(schema)
        if "enum" in whole:
            return whole["enum"][0]
        kind = whole.get("type", "object" if "properties" in whole else None)
        if kind == "array":
            return [self._made(whole["items"], name)]
        if kind == "object":
            named = _name(schema) or name
            made = {key: self._field(named, key, item) for key, item in whole.get("properties", {}).items()}
            is_open = bool(whole.get("additionalProperties")) or not made
            return Answered(made, named, self, is_open)
        if kind == "string":
            return "2026-03-01T00:00:00+00:00" if whole.get("format") == "date-time" else name
        return {"integer": 1, "number": 1, "boolean": False}.get(str(kind))

    def _field(self, named: str, key: str, schema: Json) -> Any:
        for given in (f"{named}.{key}", key):
            if given in self.values:
                return self.values[given]
        return self._made(schema, key)


def _name(schema: Json) -> str:
    """The name that a schema goes by."""
    for choice in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        if "$ref" in choice:
            return str(choice["$ref"]).rpartition("/")[2]
    return ""
