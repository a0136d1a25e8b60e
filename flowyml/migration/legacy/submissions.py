"""``run_pipeline``: in 0.x it waited and returned an id, in 1.0 it returns a handle at once."""

from __future__ import annotations

import re

import libcst as cst
from libcst.metadata import Assignment

from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.kinds import SUBMISSION_ATTRIBUTES, Kinds
from flowyml.migration.legacy.source import Source, code_of, keyword_of, named_argument

_HANDLE = "submission"
#: Names that only code for 1.0 has. In a file with one, ambiguous code is for a person.
_NEW = re.compile(r"\b(SubmissionResult|wait_for_completion)\b|\.job_id\b|\brun_pipeline\([^()]*run_id=")
_ADVICE = "run_pipeline returns a SubmissionResult at once: its id is .job_id, and .wait_for_completion() waits"


def replace_ids(source: Source, kinds: Kinds) -> None:
    """Add a wait, and use the id of the handle, where the result of ``run_pipeline`` is used as an id."""
    rule = _Submissions(source, kinds)
    calls = source.nodes(cst.Call)
    called = {call.func for call in calls}
    for call in calls:
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "run_pipeline":
            rule.call(call)
    for attribute in source.nodes(cst.Attribute):
        is_named = attribute.attr.value == "run_pipeline" and attribute not in called
        if is_named and kinds.of(attribute.value) == "orchestrator":
            source.needs_you(Item.SUBMISSIONS, attribute, f"run_pipeline is handed on. {_ADVICE}")


class _Submissions:
    def __init__(self, source: Source, kinds: Kinds) -> None:
        self._source, self._kinds = source, kinds
        self._is_begun = bool(_NEW.search(source.text))
        self._may_name = re.search(rf"\b{_HANDLE}\b", source.text) is None

    def call(self, call: cst.Call) -> None:
        if any(keyword_of(argument) == "run_id" for argument in call.args):
            return  # 0.x had none
        assert isinstance(call.func, cst.Attribute)
        if self._kinds.of(call.func.value) != "orchestrator":
            self._unknown(call, call.func.value)
            return
        parent = self._source.parents[call]
        if isinstance(parent, cst.Attribute):
            if parent.attr.value not in SUBMISSION_ATTRIBUTES:
                self._point(call)
        elif isinstance(parent, cst.Comparison):
            self._point(call, "what run_pipeline returns is compared: compare .wait_for_completion().status")
        elif isinstance(parent, cst.Assign | cst.AnnAssign | cst.NamedExpr):
            self._assigned(call, parent)
        elif self._is_begun:
            self._point(call)
        elif isinstance(parent, cst.Expr):
            self._source.edits.change(call, _waiting)
            self._source.done(Item.SUBMISSIONS, call, "waits for the end, as it did")
        else:
            self._chain(call)

    def _unknown(self, call: cst.Call, receiver: cst.BaseExpression) -> None:
        if self._source.flowyml_name(call) or (isinstance(receiver, cst.Name) and receiver.value in ("self", "cls")):
            return
        parent = self._source.parents[call]
        if isinstance(parent, cst.Attribute) and parent.attr.value in SUBMISSION_ATTRIBUTES:
            return
        if isinstance(parent, cst.Assign) and self._uses(parent)[1] == 0 and self._uses(parent)[0]:
            return
        self._point(call, f"if this is FlowyML's orchestrator: {_ADVICE}")

    def _assigned(self, call: cst.Call, parent: cst.Assign | cst.AnnAssign | cst.NamedExpr) -> None:
        new, old = self._uses(parent)
        if new and not old:
            return
        if new or self._is_begun:
            self._point(call)
            return
        statement = self._source.parents[parent]
        names = [target.target for target in parent.targets] if isinstance(parent, cst.Assign) else []
        if (
            self._may_name
            and isinstance(statement, cst.SimpleStatementLine)
            and len(statement.body) == 1
            and len(names) == 1
        ):
            self._source.edits.change(statement, _in_three_lines)
            self._source.done(Item.SUBMISSIONS, call, "waits for the end, as it did, and takes the id of the handle")
        else:
            self._chain(call)

    def _chain(self, call: cst.Call) -> None:
        self._source.edits.change(call, lambda updated: cst.Attribute(_waiting(updated), cst.Name("job_id")))
        self._source.done(Item.SUBMISSIONS, call, "waits for the end, as it did, and takes the id of the handle")

    def _uses(self, parent: cst.CSTNode) -> tuple[int, int]:
        """Return the number of uses of an assigned value as a handle, and of other uses."""
        if isinstance(parent, cst.Assign):
            targets: list[cst.BaseExpression] = [target.target for target in parent.targets]
        else:
            assert isinstance(parent, cst.AnnAssign | cst.NamedExpr)
            targets = [parent.target]
        new = old = 0
        for target in targets:
            for use in self._uses_of(target):
                around = self._source.parents.get(use)
                is_new = (
                    isinstance(around, cst.Attribute)
                    and around.value is use
                    and around.attr.value in SUBMISSION_ATTRIBUTES
                )
                new, old = new + is_new, old + (not is_new)
        return new, old

    def _uses_of(self, target: cst.BaseExpression) -> list[cst.CSTNode]:
        if isinstance(target, cst.Name):
            found = [each for each in self._kinds.assignments(target) if isinstance(each, Assignment)]
            return [access.node for each in found[:1] for access in each.references]
        if isinstance(target, cst.Attribute):
            written = code_of(target)
            return [
                node
                for node in self._source.nodes(cst.Attribute)
                if node is not target and code_of(node) == written
                and not isinstance(self._source.parents.get(node), cst.AssignTarget)
            ]  # fmt: skip
        return []

    def _point(self, call: cst.CSTNode, message: str = _ADVICE) -> None:
        self._source.needs_you(Item.SUBMISSIONS, call, message)


def _waiting(call: cst.BaseExpression) -> cst.Call:
    """Add a wait: 0.x waited without a limit; 1.0 waits for an hour unless it gets another time."""
    forever = cst.Call(cst.Name("float"), [cst.Arg(cst.SimpleString('"inf"'))])
    return cst.Call(cst.Attribute(call, cst.Name("wait_for_completion")), [named_argument("timeout", forever)])


def _in_three_lines(line: cst.SimpleStatementLine) -> cst.FlattenSentinel[cst.BaseStatement]:
    """Write ``submission = …``, its wait, and the id under its former name."""
    assign = line.body[0]
    assert isinstance(assign, cst.Assign)
    handle = cst.Name(_HANDLE)
    first = line.with_changes(body=[assign.with_changes(targets=[cst.AssignTarget(handle)])])
    wait = cst.SimpleStatementLine([cst.Expr(_waiting(handle))])
    take = cst.SimpleStatementLine([assign.with_changes(value=cst.Attribute(handle, cst.Name("job_id")))])
    return cst.FlattenSentinel([first, wait, take])
