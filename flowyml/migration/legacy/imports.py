"""The modules of names in 1.0, and imports for the names that the edits use."""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import libcst as cst

from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.source import Source, code_of, module_of

_Line = cst.SimpleStatementLine | cst.BaseCompoundStatement
#: The present module of each name.
_HOMES = {
    "Pipeline": "flowyml",
    "PipelineResult": "flowyml.core.runs",
    "step": "flowyml",
    "Context": "flowyml",
    "context": "flowyml",
    "If": "flowyml",
    "LocalOrchestrator": "flowyml.orchestrators",
    "RemoteOrchestrator": "flowyml.orchestrators",
    "Orchestrator": "flowyml.orchestrators",
    "SubmissionResult": "flowyml.core.submission_result",
    "ExecutionStatus": "flowyml.core.execution_status",
    "ResourceRequirements": "flowyml.core.resources",
    "OrchestratorRetryPolicy": "flowyml.core.retry_policy",
    "PipelineHook": "flowyml.core.hooks",
}
_GONE = {
    "PipelineScheduler": "pipeline.schedule(schedule_type=\"daily\", value=3) has the engine's scheduler run it",
    "Schedule": "pipeline.schedule(schedule_type=…, value=…) makes one",
    "SchedulerConfig": "pipeline.schedule(…) needs none",
    "Switch": "write when(…), elif_(…) and otherwise()",
    "unless": "write when(not_(…))",
    "when": "flowyml.when is a block now: with when(condition): …",
    "Condition": "write when(…)",
    "ConditionalBranch": "write when(…)",
    "parallel_map": "step.map(item=items) runs a step for each item",
    "map_task": "step.map(item=items) runs a step for each item",
    "ParallelExecutor": "steps that need nothing of each other run side by side",
    "LocalExecutor": "LocalOrchestrator runs pipelines: pipeline.run(on=…)",
    "Executor": "subclass flowyml.orchestrators.LocalOrchestrator",
    "Stack": "a target in flowyml.toml takes its place",
    "LocalStack": "the local orchestrator takes its place",
    "ResourceConfig": "use flowyml.core.resources.ResourceRequirements, step by step",
    "GPUConfig": "write ResourceRequirements(gpu=1, gpu_type=\"…\")",
    "DockerConfig": "the image belongs to the target in flowyml.toml",
    "CacheStrategy": "see the options of a step",
    "PipelineCheckpoint": "a run that failed goes on with submission.retry()",
    "VersionedPipeline": "the run records the git commit",
    "retry": "write @step(retry=2)",
    "on_failure": "write a PipelineHook with on_error",
    "Step": "steps are made by @step",
}  # fmt: skip


def move_imports(source: Source) -> None:
    """Import names from their present modules; report those that were removed."""
    for node in source.nodes(cst.Import):
        for alias in node.names:
            module = alias.evaluated_name
            if module.partition(".")[0] == "flowyml" and not _exists(module):
                source.needs_you(Item.IMPORTS, node, f"{module} has gone: import the names from flowyml")
    for node in source.nodes(cst.ImportFrom):
        module = module_of(node)
        if module.partition(".")[0] == "flowyml":
            _move(source, node, module)


def _move(source: Source, node: cst.ImportFrom, module: str) -> None:
    if isinstance(node.names, cst.ImportStar):
        if not _exists(module):
            source.needs_you(Item.IMPORTS, node, f"{module} has gone: import the names from flowyml")
        return
    homes = [_home(source, node, module, alias.evaluated_name) for alias in node.names]
    if set(homes) == {module}:
        return
    for home in dict.fromkeys(homes):
        if home != module:
            source.moved.add(home)
            source.done(Item.IMPORTS, node, f"imported from {home}")
    if len(set(homes)) == 1:
        source.edits.change(node, lambda updated: updated.with_changes(module=_dotted(homes[0])))
        return
    line = source.parents[node]
    if isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1:
        source.edits.change(line, lambda updated: _split(updated, homes))
    else:
        source.needs_you(Item.IMPORTS, node, "its names live in several modules now: import them one by one")


def _home(source: Source, node: cst.ImportFrom, module: str, name: str) -> str:
    """Return the module of a name now; the old module, if there is none."""
    if _has(module, name) or name == "register_callback":
        return module
    if name in _HOMES and _has(_HOMES[name], name):
        return _HOMES[name]
    source.needs_you(Item.IMPORTS, node, f"{module}.{name} has gone: {_GONE.get(name, 'see docs/migration.md')}")
    return module


def _split(line: cst.SimpleStatementLine, homes: list[str]) -> cst.FlattenSentinel[cst.BaseStatement]:
    """Return one import for each module; the first gets the comments of the line."""
    node = line.body[0]
    assert isinstance(node, cst.ImportFrom)
    assert not isinstance(node.names, cst.ImportStar)
    lines: list[cst.BaseStatement] = []
    for home in dict.fromkeys(homes):
        names = [
            alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)
            for alias, place in zip(node.names, homes, strict=True)
            if place == home
        ]
        made = cst.ImportFrom(module=_dotted(home), names=names)
        if lines:
            lines.append(cst.SimpleStatementLine([made]))
        else:
            lines.append(line.with_changes(body=[made]))
    return cst.FlattenSentinel(lines)


def _dotted(module: str) -> cst.Attribute | cst.Name:
    made = cst.parse_expression(module)
    assert isinstance(made, cst.Attribute | cst.Name)
    return made


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _has(module: str, name: str) -> bool:
    """Return whether 1.0, which this is, has a public name in a module. Imports of that module do not count."""
    return name in _public(module) or _exists(f"{module}.{name}")


@cache
def _public(module: str) -> frozenset[str]:
    """Return the ``__all__`` of a module, read without importing it: the user's file names it, and some do work."""
    spec = find_spec(module) if _exists(module) else None
    if spec is None or spec.origin is None:
        return frozenset()
    for line in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(line.value))
    return frozenset()


def with_imports(module: cst.Module, wanted: dict[str, str], moved: Collection[str] = ()) -> cst.Module:
    """Add imports for missing names: among those from flowyml, else after the last import.

    Imports from the modules that names have ``moved`` to are merged if they follow one another.
    """
    body = _joined(list(module.body), moved)
    missing = {
        name: home for name, home in wanted.items()
        if not any(_home_of(line) == home and name in _names_of(line) for line in body)
    }  # fmt: skip
    for name, home in sorted(missing.items(), key=lambda pair: pair[1]):
        made = cst.SimpleStatementLine([cst.ImportFrom(module=_dotted(home), names=[cst.ImportAlias(cst.Name(name))])])
        index = _place(body, home)
        if index < len(body) and _home_of(body[index]) > home and _is_ours(body[index]):  # it is in the other's place
            made = made.with_changes(leading_lines=cst.ensure_type(body[index], cst.SimpleStatementLine).leading_lines)
            body[index] = body[index].with_changes(leading_lines=[])
        body.insert(index, made)
    return module.with_changes(body=body)


def _joined(body: list[_Line], moved: Collection[str]) -> list[_Line]:
    made: list[_Line] = []
    block: dict[str, int] = {}  # module: the index of its import in this block
    for line in body:
        home = _home_of(line)
        if not _is_ours(line) or line.leading_lines:
            block = {}
        if home in moved and home in block and _is_plain(line) and _is_plain(made[block[home]]):
            made[block[home]] = _with_names_of(made[block[home]], line)
            continue
        if home in moved and _is_plain(line):
            block.setdefault(home, len(made))
        made.append(line)
    return made


def _is_plain(line: _Line) -> bool:
    """Return whether a line is one import of a few names, without parentheses and comments."""
    if not isinstance(line, cst.SimpleStatementLine) or len(line.body) != 1 or line.trailing_whitespace.comment:
        return False
    node = line.body[0]
    return isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar) and node.lpar is None


def _with_names_of(line: _Line, other: _Line) -> _Line:
    node, more = (
        cst.ensure_type(cst.ensure_type(each, cst.SimpleStatementLine).body[0], cst.ImportFrom)
        for each in (line, other)
    )
    assert not isinstance(node.names, cst.ImportStar)
    assert not isinstance(more.names, cst.ImportStar)
    names = {
        code_of(alias).rstrip(", "): alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)
        for alias in (*node.names, *more.names)
    }
    ordered = [names[name] for name in sorted(names, key=lambda name: (name[:1].islower(), name))]
    return line.with_changes(body=[node.with_changes(names=ordered)])


def _place(body: list[_Line], home: str) -> int:
    """Return the position of an import."""
    ours = [(index, _home_of(line)) for index, line in enumerate(body) if _is_ours(line)]
    if ours:
        before = [index for index, number in ours if number <= home]
        return before[-1] + 1 if before else ours[0][0]
    imports = [index for index, line in enumerate(body) if _home_of(line)]
    if imports:
        return imports[-1] + 1
    return int(cst.Module(body=body).get_docstring() is not None)


def _is_ours(line: cst.CSTNode) -> bool:
    return _home_of(line).partition(".")[0] == "flowyml"


def _home_of(line: cst.CSTNode) -> str:
    """Return the module that a line imports from; ``""`` for a line that is not an import."""
    node = line.body[0] if isinstance(line, cst.SimpleStatementLine) else line
    if isinstance(node, cst.Import):
        return node.names[0].evaluated_name
    if isinstance(node, cst.ImportFrom):
        return "." * len(node.relative) + ("" if node.module is None else code_of(node.module))
    return ""


def _names_of(line: cst.CSTNode) -> list[str]:
    node = line.body[0] if isinstance(line, cst.SimpleStatementLine) else line
    if not isinstance(node, cst.ImportFrom) or isinstance(node.names, cst.ImportStar):
        return []
    return [alias.evaluated_name for alias in node.names if alias.asname is None]
