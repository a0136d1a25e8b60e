"""Replace comparisons with raw status strings by comparisons with members of ``ExecutionStatus``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import libcst as cst
import libcst.matchers as m

from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.kinds import Kinds
from flowyml.migration.legacy.source import Source, always, literal_text

MODULE, NAME = "flowyml.core.execution_status", "ExecutionStatus"
MEMBERS = ("QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "SUCCEEDED", "ERROR")
#: Other spellings of a member. An engine's own words are for a person to change.
_SPELLINGS = {
    **{name: name for name in MEMBERS},
    "CANCELED": "CANCELLED", "SUCCESS": "COMPLETED", "TIMED_OUT": "TIMEOUT", "TIMEDOUT": "TIMEOUT",
}  # fmt: skip
_OF_ENGINES = {"PENDING", "SCHEDULED", "SUBMITTED", "CANCELLING", "CANCELING", "ABORTED", "CRASHED", "STOPPED", "LATE"}
STATUS_WORDS = frozenset(_SPELLINGS) | _OF_ENGINES
_EQUAL, _IN = cst.Equal | cst.NotEqual, cst.In | cst.NotIn
_COLLECTION = cst.List | cst.Tuple | cst.Set
_STRING_METHODS = frozenset(name for name in dir(str) if not name.startswith("_"))
_NAMES = ("status", "state")
_MEMBERS = ", ".join(MEMBERS[:6])


def replace_statuses(source: Source, kinds: Kinds) -> None:
    """Note each use of a status as a string, and edit those whose meaning the file shows."""
    rule = _Statuses(source, kinds)
    for comparison in source.nodes(cst.Comparison):
        rule.comparison(comparison)
    for match in source.nodes(cst.Match):
        rule.match(match)
    for node in source.nodes(cst.BinaryOperation, cst.Call, cst.Subscript):
        rule.use(node)
    rule.write()


class _Statuses:
    def __init__(self, source: Source, kinds: Kinds) -> None:
        self._source, self._kinds = source, kinds
        self._can_import = source.can_import(NAME)
        self._literals: dict[cst.CSTNode, str] = {}
        self._plain: set[cst.CSTNode] = set()  # nodes in .upper(), .lower() or str() that have no effect any more
        self._handled: set[cst.CSTNode] = set()

    def write(self) -> None:
        for node, member in self._literals.items():
            self._source.edits.change(node, always(cst.Attribute(cst.Name(NAME), cst.Name(member))))
            self._source.want_import(MODULE, NAME)
        for node in self._plain:
            self._source.edits.change(node, _without_call)

    # Comparisons.

    def comparison(self, node: cst.Comparison) -> None:
        if len(node.comparisons) > 1:
            if any(self._is_status(side) for side in (node.left, *(each.comparator for each in node.comparisons))):
                self._point(node, "a chain of comparisons with a status: compare with members of ExecutionStatus")
            return
        target = node.comparisons[0]
        left, operator, right = node.left, target.operator, target.comparator
        if isinstance(operator, _EQUAL):
            if self._is_status(right) and not self._is_status(left):
                left, right = right, left
            if self._is_status(left):
                self._equality(node, left, right)
            else:
                self._perhaps(node, left, right)
        elif isinstance(operator, _IN):
            if self._is_status(left):
                self._membership(node, left, right)
            elif self._kinds.of(right) in ("*status", "%status") and literal_text(left) is not None:
                self._replace(node, [left])
            elif isinstance(right, _COLLECTION):
                self._perhaps(node, left, *(element.value for element in right.elements))

    def _equality(self, node: cst.Comparison, status: cst.BaseExpression, other: cst.BaseExpression) -> None:
        if literal_text(other) is not None:
            self._replace(node, [other], status)
        elif not (self._is_status(other) or self._is_new(other) or m.matches(other, m.Name("None"))):
            constant = self._constant(other)
            if isinstance(constant, cst.SimpleString):
                self._replace(node, [constant], status)
            else:
                self._point(node, f"what a status is compared with is not visible here: it must be one of {_MEMBERS}")

    def _membership(self, node: cst.Comparison, status: cst.BaseExpression, among: cst.BaseExpression) -> None:
        if not isinstance(among, _COLLECTION):
            constant = self._constant(among)
            if not isinstance(constant, _COLLECTION):
                if self._kinds.of(among) != "*status":
                    self._point(node, "what a status is looked for in is not visible here: it must hold members")
                return
            among = constant
        elements = [element.value for element in among.elements]
        if all(map(self._is_new, elements)):
            return
        words = [element for element in elements if not self._is_new(element)]
        if all(literal_text(word) is not None for word in words):
            self._replace(node, words, status)
        else:
            self._point(node, "not all that a status is looked for in is visible here: it must hold members")

    def _constant(self, node: cst.BaseExpression) -> cst.BaseExpression | None:
        """Return the literal that a name is bound to once, if the name is only compared with statuses."""
        found = self._kinds.binding(node)
        users = [access.node for access in found.references] if found else []
        return self._kinds.bound_value(node) if all(map(self._is_in_comparison_with_status, users)) else None

    def _is_in_comparison_with_status(self, node: cst.CSTNode) -> bool:
        target = self._source.parents.get(node)
        comparison = self._source.parents.get(target) if target is not None else None
        if isinstance(target, cst.Comparison):  # the left side
            comparison = target
        if not isinstance(comparison, cst.Comparison) or len(comparison.comparisons) != 1:
            return False
        other = comparison.comparisons[0].comparator if comparison.left is node else comparison.left
        return self._is_status(other)

    # match.

    def match(self, node: cst.Match) -> None:
        if not self._is_status(node.subject):
            return
        words: list[cst.BaseExpression] = []
        for case in node.cases:
            patterns = case.pattern.patterns if isinstance(case.pattern, cst.MatchOr) else [case.pattern]
            for each in patterns:
                pattern = each.pattern if isinstance(each, cst.MatchOrElement) else each
                if isinstance(pattern, cst.MatchValue) and literal_text(pattern.value) is not None:
                    words.append(pattern.value)
        if words:
            self._replace(node, words, node.subject)

    # Other uses as a string.

    def use(self, node: cst.BinaryOperation | cst.Call | cst.Subscript) -> None:
        if isinstance(node, cst.BinaryOperation):
            self._addition(node)
        elif isinstance(node, cst.Subscript):
            index = node.slice[0].slice if len(node.slice) == 1 else None
            if isinstance(index, cst.Index) and self._is_status(index.value):
                self._lookup(node)
        elif isinstance(node.func, cst.Attribute):
            method = node.func.attr.value
            if self._is_bare_status(node.func.value) and method in _STRING_METHODS and node not in self._handled:
                self._point(node, f"a status is not text: it has no .{method}(): compare with {_MEMBERS}")
            elif method == "get" and node.args and self._is_status(node.args[0].value):
                self._lookup(node)

    def _addition(self, node: cst.BinaryOperation) -> None:
        if not isinstance(node.operator, cst.Add):
            return
        for side in (node.left, node.right):
            if self._is_bare_status(side):
                self._source.edits.change(side, lambda updated: cst.Call(cst.Name("str"), [cst.Arg(updated)]))
                self._source.done(Item.STATUSES, node, "a status is added to text by str(…)")

    def _lookup(self, node: cst.Subscript | cst.Call) -> None:
        looked_in = node.value if isinstance(node, cst.Subscript) else node.func
        if isinstance(looked_in, cst.Attribute) and not isinstance(node, cst.Subscript):
            looked_in = looked_in.value
        if isinstance(value := self._kinds.bound_value(looked_in), cst.Dict):
            keys = [element.key for element in value.elements if isinstance(element, cst.DictElement)]
            if len(keys) == len(value.elements) and all(map(self._is_new, keys)):
                return
        self._point(node, f"a status is looked up in a dict: its keys must be members, {_MEMBERS}")

    # The kind of value of an expression.

    def _is_bare_status(self, node: cst.CSTNode) -> bool:
        return self._kinds.of(node) in ("status", "state")

    def _is_status(self, node: cst.CSTNode) -> bool:
        return self._is_bare_status(node) or (_unwrapped(node) is not node and self._is_bare_status(_unwrapped(node)))

    def _is_new(self, node: cst.CSTNode) -> bool:
        return m.matches(node, m.Attribute(value=m.Name(NAME)) | m.Attribute(attr=m.Name(NAME))) or m.matches(
            node, m.Attribute(value=m.Attribute(attr=m.Name(NAME)))
        )

    def _replace(
        self, node: cst.CSTNode, words: Sequence[cst.BaseExpression], status: cst.BaseExpression | None = None
    ) -> None:
        members = [_SPELLINGS.get((literal_text(word) or "").upper()) for word in words]
        strangers = [literal_text(word) for word, member in zip(words, members, strict=True) if member is None]
        if strangers or not self._can_import:
            why = f"1.0 has no status {strangers[0]!r}" if strangers else f"{NAME} is another thing in this file"
            self._point(node, f"{why}: compare with {_MEMBERS}")
            if status is not None and _unwrapped(status) is not status:
                self._handled.add(status)
            return
        for word, member in zip(words, members, strict=True):
            self._literals[word] = str(member)
        if status is not None:
            self._unwrap(status)
            self._initial_words(status)
        named = ", ".join(dict.fromkeys(f"{NAME}.{member}" for member in members))
        self._source.done(Item.STATUSES, node, f"compared with {named}")

    def _unwrap(self, status: cst.BaseExpression) -> None:
        if _unwrapped(status) is not status:
            self._plain.add(status)
            self._handled.add(status)
        if isinstance(status, cst.Attribute) and self._kinds.of(status) == "state":
            self._source.edits.change(status.attr, always(cst.Name("status")))
        inner = _unwrapped(status)
        if inner is not status and isinstance(inner, cst.Attribute) and self._kinds.of(inner) == "state":
            self._source.edits.change(inner.attr, always(cst.Name("status")))

    def _initial_words(self, status: cst.BaseExpression) -> None:
        """Turn the word that a name is first bound to, before a loop, into a member too."""
        name = _unwrapped(status)
        if not isinstance(name, cst.Name):
            return
        for assignment in self._kinds.assignments(name):
            value = self._kinds.value_of(assignment)
            text = None if value is None else literal_text(value)
            if value is None or text is None or value in self._literals:
                continue
            if member := _SPELLINGS.get(text.upper()):
                self._literals[value] = member
                self._source.done(Item.STATUSES, value, f"begins as {NAME}.{member}")
            else:
                self._point(
                    value, f"{name.value} begins as {text!r}, which is not a status of 1.0: {_MEMBERS}, or None"
                )

    def _perhaps(self, node: cst.Comparison, *sides: cst.BaseExpression) -> None:
        """Note a comparison of a variable named like a status with a status word, if its kind is unknown."""
        texts = [text.upper() for side in sides if (text := literal_text(side)) is not None]
        if not any(text in STATUS_WORDS for text in texts) or not any(map(_is_called_status, sides)):
            return
        self._point(node, f"if this is FlowyML's status, compare with a member of {NAME}; else accept the line")

    def _point(self, node: cst.CSTNode, message: str) -> None:
        self._source.needs_you(Item.STATUSES, node, message)


def _unwrapped(node: cst.CSTNode) -> cst.CSTNode:
    """Return the argument inside of nested ``x.upper()``, ``x.lower()`` and ``str(x)``."""
    if m.matches(node, m.Call(func=m.Attribute(attr=m.Name("upper") | m.Name("lower") | m.Name("strip")), args=[])):
        return _unwrapped(node.func.value)  # type: ignore[attr-defined]  # matched
    if m.matches(node, m.Call(func=m.Name("str"), args=[m.Arg()])):
        return _unwrapped(node.args[0].value)  # type: ignore[attr-defined]  # matched
    return node


def _without_call(node: cst.Call) -> cst.BaseExpression:
    inner = _unwrapped(node)
    assert isinstance(inner, cst.BaseExpression)
    return inner


def _is_called_status(node: cst.CSTNode) -> bool:
    node = _unwrapped(node)
    name = node.attr.value if isinstance(node, cst.Attribute) else node.value if isinstance(node, cst.Name) else ""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute | cst.Name):
        return _is_called_status(node.func)
    if isinstance(node, cst.Subscript):
        texts: Iterable[str | None] = [
            literal_text(each.slice.value) for each in node.slice if isinstance(each.slice, cst.Index)
        ]
        name = next((text for text in texts if text), "")
    return name != "raw_status" and name.lower().rpartition("_")[2] in _NAMES
