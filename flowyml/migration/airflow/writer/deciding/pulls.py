"""Values that functions pull from other tasks (``ti.xcom_pull``): they become parameters of the functions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import libcst as cst
import libcst.matchers as m

from flowyml.migration.airflow.model import ValueEdge
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.context import Asking
from flowyml.migration.airflow.writer.deciding.decision import Function
from flowyml.migration.airflow.writer.values import variable_of

TASK = ("ti", "task_instance")
"""Airflow's names for the running task."""


def with_parameters(
    asking: Asking, moved: Function, tree: ast.FunctionDef | ast.AsyncFunctionDef,
    is_task: Callable[[ast.AST], bool], arguments: Collection[str],
) -> tuple[Function, Mapping[str, ValueEdge | None]]:  # fmt: skip
    """Return the function with a parameter for each value that it pulls, and these values.

    ``is_task`` recognizes the running task in its ``tree``; ``arguments`` names what the call gives it already. Raises
    ``Unclear`` if it uses its task in any other way, or cannot be changed.
    """
    calls, kept = _pulls(tree, is_task)
    if moved.is_imported or moved.node.decorators or moved.node.params.posonly_params:  # it stays as it is
        if calls or kept:
            raise Unclear("it pulls values of other tasks, and its decorators, module or signature expect that")
        return moved, {each.arg: None for each in ast.walk(tree.args) if isinstance(each, ast.arg) and each.arg in TASK}
    nodes = list(ast.walk(tree))
    used = {each.id for each in nodes if isinstance(each, ast.Name)}
    taken = [*arguments, *(each.arg for each in nodes if isinstance(each, ast.arg))]
    taken += [name for each in nodes if isinstance(each, ast.Global | ast.Nonlocal) for name in each.names]
    taken += [each.id for each in nodes if isinstance(each, ast.Name) and not _is_read(each)]
    assigned = {each.value: each for each in tree.body if isinstance(each, ast.Assign)}
    parameters: dict[ValueEdge, str] = {}
    gone = [ast.unparse(each) for each in kept]
    for call in calls:
        edge = asking.pulled(call)
        if edge in parameters:
            continue
        statement = assigned.get(call)
        if statement and (name := ast.unparse(statement.targets[0])) and taken.count(name) == 1:
            gone.append(ast.unparse(statement))
        else:
            name = variable_of(edge.task_id if edge.key == "return_value" else f"{edge.task_id}_{edge.key}") + "_value"
            while name in {*used, *taken, *parameters.values()}:
                name += "_"
        parameters[edge] = name
    texts = {ast.unparse(call): parameters[asking.pulled(call)] for call in calls}
    node = moved.node.visit(_Rewritten(moved, texts, gone))
    assert isinstance(node, cst.FunctionDef)
    node = node.with_changes(params=_signature(node, list(parameters.values()), arguments))
    needed = moved.home.needed(node, moved.model.name)
    made = replace(moved, node=node, needed=needed, signature=moved.home.code(node.params))
    return made, {name: edge for edge, name in parameters.items()}


def _is_read(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _pulls(tree: ast.AST, is_task: Callable[[ast.AST], bool]) -> tuple[Sequence[ast.Call], Sequence[ast.Assign]]:
    """Return the calls by which a function pulls values, and the statements that give its task a name."""
    nodes = list(ast.walk(tree))
    kept = [node for node in nodes if isinstance(node, ast.Assign) and is_task(node.value)]
    names = {each.id for node in kept for each in node.targets if isinstance(each, ast.Name)}
    stored = [node for node in nodes if isinstance(node, ast.Name) and node.id in names and not _is_read(node)]

    def stands_for(node: ast.AST) -> bool:
        return is_task(node) or (isinstance(node, ast.Name) and node.id in names and _is_read(node))

    calls = [
        node for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "xcom_pull"
        and stands_for(node.func.value)
    ]  # fmt: skip
    if len(calls) + len(kept) != sum(map(stands_for, nodes)) or not len(stored) == len(kept) == len(names):
        raise Unclear("it takes ti of Airflow")
    return sorted(calls, key=lambda each: (each.lineno, each.col_offset)), kept


class _Rewritten(cst.CSTTransformer):
    """Puts names in place of calls, and leaves out statements; both by their texts, as ``ast.unparse`` writes them."""

    def __init__(self, moved: Function, names: Mapping[str, str], gone: Collection[str]) -> None:
        super().__init__()
        self._moved, self._names, self._gone = moved, names, gone

    def _text(self, node: cst.CSTNode) -> str:
        return ast.unparse(ast.parse(self._moved.home.code(node).strip()))

    def leave_Call(  # noqa: N802  # libcst's name
        self, original_node: cst.Call, updated_node: cst.Call
    ) -> cst.BaseExpression:
        if not isinstance(original_node.func, cst.Attribute) or original_node.func.attr.value != "xcom_pull":
            return updated_node
        name = self._names.get(self._text(original_node))
        return cst.Name(name, lpar=updated_node.lpar, rpar=updated_node.rpar) if name else updated_node

    def leave_IndentedBlock(  # noqa: N802  # libcst's name
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        body: list[cst.BaseStatement] = []
        comments: list[cst.EmptyLine] = []
        for original, each in zip(original_node.body, updated_node.body, strict=True):
            if not isinstance(original, cst.SimpleStatementLine):
                body.append(each)
            elif self._text(original.with_changes(leading_lines=[])) in self._gone:
                comments += [line for line in original.leading_lines if line.comment]
                if comment := original.trailing_whitespace.comment:
                    comments.append(cst.EmptyLine(comment=comment))
            else:
                assert isinstance(each, cst.SimpleStatementLine)
                body.append(each.with_changes(leading_lines=[*comments, *each.leading_lines]))
                comments = []
        body = body or [cst.SimpleStatementLine([cst.Pass()])]
        return updated_node.with_changes(body=body, footer=[*comments, *updated_node.footer])


def _signature(node: cst.FunctionDef, names: Sequence[str], arguments: Collection[str]) -> cst.Parameters:
    """Return a signature with names in place of the task, by name only where they could shift other arguments.

    ``**context`` goes with the task, unless the function takes more of it.
    """
    spec = node.params
    made = [cst.Param(cst.Name(each)) for each in names]
    places = [number for number, each in enumerate(spec.params) if each.name.value in TASK and not each.default]
    if not places and isinstance(spec.star_arg, cst.MaybeSentinel) and not any(each.default for each in spec.params):
        places = [len(spec.params)]
    params, kwonly = [*spec.params], [*spec.kwonly_params]
    target, place = (params, places[0]) if places else (kwonly, 0)
    target[place:place] = made
    params, kwonly = ([each for each in some if each.name.value not in TASK] for some in (params, kwonly))
    own = {each.name.value for each in (*params, *kwonly)}
    rest = spec.star_kwarg
    is_needed = bool(m.findall(node.body, m.Name(rest.name.value))) if rest else False
    if not is_needed and own >= {each for each in arguments if not each.isdigit()}:
        rest = None
    is_bare = isinstance(spec.star_arg, cst.ParamStar) and not kwonly
    for some in (params, kwonly):
        some[-1:] = [each.with_changes(comma=cst.MaybeSentinel.DEFAULT) for each in some[-1:]]
    return spec.with_changes(params=params, kwonly_params=kwonly, star_kwarg=rest,
                             star_arg=cst.MaybeSentinel.DEFAULT if is_bare else spec.star_arg)  # fmt: skip
