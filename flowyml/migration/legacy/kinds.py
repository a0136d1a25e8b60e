"""The kind of an expression, as far as a file shows it: a pipeline, an orchestrator, a status. Never a guess.

A kind is a word; ``*status`` is a list (or set, or tuple) of statuses, and ``%status`` a dict with statuses as values.
"""

from __future__ import annotations

from collections.abc import Callable

import libcst as cst
from libcst.metadata import Assignment, BaseAssignment

from flowyml.migration.legacy.source import Source, literal_text

ORCHESTRATORS = frozenset({
    "Orchestrator", "LocalOrchestrator", "RemoteOrchestrator", "AirflowOrchestrator", "KubeflowOrchestrator",
    "PrefectOrchestrator", "KubeflowLocalOrchestrator",
})  # fmt: skip
SUBMISSION_ATTRIBUTES = frozenset({
    "artifacts", "cancel", "duration_seconds", "error", "job_id", "logs", "orchestrator", "outputs", "raw_status",
    "refresh", "result", "retry", "run", "run_id", "status", "step_runs", "step_statuses", "url", "wait_for_completion",
})  # fmt: skip
_NONE = "none"
#: ``submission`` is the result of ``run_pipeline`` in 1.0, whether the file is written for 1.0 or for 0.x.
_METHODS = {
    ("orchestrator", "run_pipeline"): "submission",
    ("orchestrator", "attach"): "submission",
    ("orchestrator", "get_run_status"): "status",
    ("pipeline", "add_step"): "pipeline",
    ("pipeline", "add_control_flow"): "pipeline",
    ("pipeline", "run"): "result",
    ("pipeline", "submit"): "submission",
    ("submission", "wait_for_completion"): "submission",
    ("submission", "refresh"): "submission",
    ("submission", "result"): "result",
}
_ATTRIBUTES = {("submission", "status"): "status", ("result", "status"): "status", ("result", "state"): "state"}


class Kinds:
    """The kinds of the expressions of one module."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bound: dict[cst.CSTNode, Callable[[], str]] = {}
        self._values: dict[cst.CSTNode, cst.BaseExpression] = {}
        self._attributes: dict[tuple[cst.CSTNode | None, str], list[cst.BaseExpression]] = {}
        self._asked: set[cst.CSTNode] = set()
        self._subclasses = {"Pipeline": {"Pipeline"}, "Orchestrator": set(ORCHESTRATORS)}
        self._own_classes: dict[str, str] = {}
        self._with_own_arguments: set[str] = set()
        self._find_classes()
        self._find_bindings()

    def of(self, node: cst.CSTNode) -> str:
        """Return the kind of an expression; ``""`` if it is unknown."""
        if node in self._asked:
            return _NONE  # asked by itself: it adds nothing
        self._asked.add(node)
        try:
            return self._of(node)
        finally:
            self._asked.discard(node)

    def assignments(self, name: cst.Name) -> list[BaseAssignment]:
        """Return the bindings of a name in its scope."""
        scope = self._source.scope(name)
        return [] if scope is None else list(scope[name.value])

    def binding(self, node: cst.CSTNode) -> Assignment | None:
        """Return the only binding of a name, unless it is an import; None for any other node."""
        found = self.assignments(node) if isinstance(node, cst.Name) else []
        return found[0] if len(found) == 1 and isinstance(found[0], Assignment) else None

    def bound_value(self, node: cst.CSTNode) -> cst.BaseExpression | None:
        """Return the value of the only binding of a name; None for parameters, loops and imports, and other nodes."""
        found = self.binding(node)
        return self.value_of(found) if found else None

    def value_of(self, assignment: BaseAssignment) -> cst.BaseExpression | None:
        """Return the value of an assignment; None for parameters, loops and imports."""
        return self._values.get(assignment.node) if isinstance(assignment, Assignment) else None

    def class_kind(self, node: cst.ClassDef) -> str:
        """Return ``pipeline`` or ``orchestrator`` for a class that derives from one, in this file or by import."""
        return self._own_classes.get(node.name.value, "")

    def makes_pipeline(self, function: cst.BaseExpression) -> bool:
        """Return whether a call takes the arguments of ``Pipeline``: the class, or a subclass with its constructor."""
        if self._class_called(function) != "pipeline":
            return False
        return not isinstance(function, cst.Name) or function.value not in self._with_own_arguments

    # The kinds of expressions.

    def _of(self, node: cst.CSTNode) -> str:
        if isinstance(node, cst.Call):
            return self._of_call(node)
        if isinstance(node, cst.Name):
            return self._of_name(node)
        if isinstance(node, cst.Attribute):
            return self._of_attribute(node)
        if isinstance(node, cst.NamedExpr | cst.Await):
            return self.of(node.value if isinstance(node, cst.NamedExpr) else node.expression)
        if isinstance(node, cst.IfExp):
            return _same([self.of(node.body), self.of(node.orelse)])
        if isinstance(node, cst.List | cst.Tuple | cst.Set):
            kind = _same([self.of(element.value) for element in node.elements])
            return f"*{kind}" if kind and kind != _NONE else ""
        if isinstance(node, cst.ListComp | cst.SetComp | cst.GeneratorExp):
            kind = self.of(node.elt)
            return f"*{kind}" if kind else ""
        if isinstance(node, cst.DictComp):
            kind = self.of(node.value)
            return f"%{kind}" if kind else ""
        if isinstance(node, cst.Subscript):
            kind = self.of(node.value)
            return kind[1:] if kind[:1] in ("*", "%") else ""
        return ""

    def _of_call(self, node: cst.Call) -> str:
        function = node.func
        if kind := self._class_called(function):
            return kind
        if isinstance(function, cst.Attribute):
            method = function.attr.value
            if method == "get_run_status":  # a word of FlowyML's alone
                return "status"
            receiver = self.of(function.value)
            if receiver[:1] == "%" and method == "values":
                return f"*{receiver[1:]}"
            if receiver[:1] == "%" and method == "get":
                return receiver[1:]
            if found := _METHODS.get((receiver, method)):
                return found
        if isinstance(function, cst.Name) and function.value in ("list", "set", "tuple", "sorted") and node.args:
            kind = self.of(node.args[0].value)
            return kind if kind[:1] == "*" else ""
        return self._returned(function)

    def _class_called(self, function: cst.BaseExpression) -> str:
        name = self._source.flowyml_name(function)
        if name == "Pipeline":
            return "pipeline"
        if name in ORCHESTRATORS:
            return "orchestrator"
        return self._own_classes.get(function.value, "") if isinstance(function, cst.Name) else ""

    def _returned(self, function: cst.BaseExpression) -> str:
        """Return the kind of the result of a function in this file, or of a method of the same class."""
        found = self._function(function)
        if found is None or found.asynchronous is not None:
            return ""
        every = self._source.nodes(cst.Return)
        returns = [each for each in every if self._source.around(each, cst.FunctionDef, cst.Lambda) is found]
        return _same([self.of(each.value) if each.value is not None else _NONE for each in returns])

    def _function(self, function: cst.BaseExpression) -> cst.FunctionDef | None:
        found = self.binding(function)
        if found and isinstance(found.node, cst.FunctionDef):
            return None if found.node.decorators else found.node
        if isinstance(function, cst.Attribute) and _is_self(function.value):
            made = method_of(self._source.around(function, cst.ClassDef), function.attr.value)
            return made if made and not made.decorators else None
        return None

    def _of_name(self, node: cst.Name) -> str:
        return _same([self._of_binding(assignment) for assignment in self.assignments(node)])

    def _of_binding(self, assignment: BaseAssignment) -> str:
        if isinstance(assignment, Assignment) and (ask := self._bound.get(assignment.node)) is not None:
            return ask()
        return ""

    def _of_attribute(self, node: cst.Attribute) -> str:
        if _is_self(node.value):
            owner = self._source.around(node, cst.ClassDef)
            found = self._attributes.get((owner, node.attr.value), [])
            return _same([self.of(value) for value in found])
        return _ATTRIBUTES.get((self.of(node.value), node.attr.value), "")

    # The meaning of names.

    def _find_classes(self) -> None:
        classes = self._source.nodes(cst.ClassDef)
        for _ in classes:  # a class may derive from one further down only in name, yet the order is not relied on
            for each in classes:
                for base in each.bases:
                    if kind := self._class_called(base.value):
                        self._own_classes[each.name.value] = kind
                        takes_others = getattr(base.value, "value", None) in self._with_own_arguments
                        if takes_others or method_of(each, "__init__"):
                            self._with_own_arguments.add(each.name.value)

    def _find_bindings(self) -> None:
        for node in self._source.nodes(
            cst.Assign, cst.AnnAssign, cst.NamedExpr, cst.For, cst.CompFor, cst.Param, cst.WithItem
        ):
            if isinstance(node, cst.Assign):
                for target in node.targets:
                    self._bind(target.target, node.value)
            elif isinstance(node, cst.AnnAssign):
                if node.value is not None:
                    self._bind(node.target, node.value)
            elif isinstance(node, cst.NamedExpr):
                self._bind(node.target, node.value)
            elif isinstance(node, cst.Param):
                self._bind_parameter(node)
            elif isinstance(node, cst.WithItem):
                if node.asname is not None:
                    self._bound[node.asname.name] = self._asking(node.item)
            else:
                self._bind_item(node.target, node.iter)

    def _bind(self, target: cst.CSTNode, value: cst.BaseExpression) -> None:
        if isinstance(target, cst.Name):
            self._values[target] = value
            self._bound[target] = self._asking(value)
        elif isinstance(target, cst.Attribute) and _is_self(target.value):
            self._attributes.setdefault((self._source.around(target, cst.ClassDef), target.attr.value), []).append(
                value
            )

    def _bind_parameter(self, node: cst.Param) -> None:
        if node.annotation is not None:
            annotation = node.annotation.annotation
            if isinstance(annotation, cst.BinaryOperation) and isinstance(annotation.operator, cst.BitOr):
                annotation = annotation.left
            kind = self._class_called(annotation)
            if self._source.flowyml_name(annotation) == "ExecutionStatus":
                kind = "status"
            self._bound[node.name] = self._bound[node] = lambda: kind

    def _bind_item(self, target: cst.BaseExpression, items: cst.BaseExpression) -> None:
        if isinstance(target, cst.Name):
            self._bound[target] = self._item_of(items, "*")
        elif (
            isinstance(target, cst.Tuple) and len(target.elements) == 2
            and isinstance(items, cst.Call) and isinstance(items.func, cst.Attribute)
            and items.func.attr.value == "items"
        ):  # fmt: skip
            self._bound[target.elements[1].value] = self._item_of(items.func.value, "%")

    def _item_of(self, items: cst.BaseExpression, mark: str) -> Callable[[], str]:
        def ask() -> str:
            kind = self.of(items)
            return kind[1:] if kind[:1] == mark else ""

        return ask

    def _asking(self, value: cst.BaseExpression) -> Callable[[], str]:
        def ask() -> str:
            if isinstance(value, cst.Name) and value.value == "None":
                return _NONE
            return "word" if literal_text(value) is not None else self.of(value)

        return ask


def _same(kinds: list[str]) -> str:
    """Return the one kind of all, ignoring None, and words that begin as a literal."""
    known = set(kinds) - {_NONE}
    if known == {"status", "word"}:
        return "status"
    return known.pop() if len(known) == 1 else ""


def _is_self(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value == "self"


def method_of(owner: cst.ClassDef | None, name: str) -> cst.FunctionDef | None:
    """Return the first method of this name in the body of a class."""
    methods = [each for each in owner.body.body if isinstance(each, cst.FunctionDef)] if owner else []
    return next((each for each in methods if each.name.value == name), None)
