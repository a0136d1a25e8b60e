"""The text at the beginning of every compiled flow: imports, and the functions that steps and flow call.

A flow without control flow has the text of ``flow_parts``. In a flow with it, the functions of ``walk_parts`` replace
two of those; the imports of both modules become one block, without those that nothing needs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

from flowyml.core.syntax import parsed

__all__ = ["common_text", "defined_names"]

_IMPORT = "from prefect import get_run_logger, runtime\n"
_FULL_IMPORT = "from prefect import flow, get_run_logger, runtime, task\n"
_REPLACED = ("run_step", "finish_run")
_AFTER_THE_BUNDLE = "  # noqa: E402"
_END = "\n\n# The steps, and the flow."


@cache
def common_text(*, walks: bool) -> str:
    """Return the text before the steps of a flow; ``walks`` for a flow with control flow."""
    text = _text("flow_parts.py").replace(_IMPORT, _FULL_IMPORT)
    return _joined(text, _text("walk_parts.py")) if walks else text


@cache
def defined_names() -> frozenset[str]:
    """Return the names that these texts import and define."""
    texts = (common_text(walks=False), _text("walk_parts.py"))
    return frozenset(name for text in texts for node in parsed(text).body for name in _defined(node))


def _text(name: str) -> str:
    return files("flowyml_prefect").joinpath(name).read_text("utf-8").rstrip() + "\n"


def _joined(text: str, more: str) -> str:
    """Return the first text, with its functions replaced by those of the second one."""
    for node in parsed(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in _REPLACED:
            text = text.replace(f"{ast.get_source_segment(text, node)}\n\n\n", "")
    body = "".join(more.splitlines(keepends=True)[_last_import(more) :]).strip()
    imports = _imports(text, more)
    needed = {node.id for source in (text, body) for node in ast.walk(parsed(source)) if isinstance(node, ast.Name)}
    needed |= {"flow", "task", "annotations"}
    first, second = (
        list(_import_lines({m: n & needed for m, n in imports.items() if ours == m.startswith("flowyml")}))
        for ours in (False, True)
    )
    engine = next(place for place, line in enumerate(first) if "prefect" in line or "httpx" in line)
    first.insert(engine, "")
    first.insert(1, "")
    lines = text.removesuffix(f"{_END}\n").splitlines()
    begin, end = lines.index(first[0]), lines.index('PIPELINE = DIGEST = ""')
    later = [place for place, line in enumerate(lines) if line.endswith(_AFTER_THE_BUNDLE)]
    lines[later[0] : later[-1] + 1] = [line + _AFTER_THE_BUNDLE for line in second]
    lines[begin:end] = [*first, ""]
    return "\n".join(lines) + f"\n\n\n{body}\n{_END}\n"


def _imports(*texts: str) -> dict[str, set[str]]:
    """Return the names that are imported from each module; empty for ``import module``."""
    found: dict[str, set[str]] = {}
    for node in (node for text in texts for node in parsed(text).body):
        if isinstance(node, ast.Import):
            found.update({item.name: {item.name} for item in node.names})
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("flowyml_prefect"):
            found.setdefault(str(node.module), set()).update(item.name for item in node.names)
    return found


def _import_lines(imports: dict[str, set[str]]) -> Iterator[str]:
    """Write import lines in ruff's order."""

    def place(module: str) -> tuple[bool, bool, bool, str]:
        top = module.partition(".")[0]
        return module != "__future__", top not in sys.stdlib_module_names, imports[module] != {module}, module

    for module in sorted((module for module, names in imports.items() if names), key=place):
        names = imports[module]
        yield f"import {module}" if names == {module} else f"from {module} import {', '.join(_sorted_names(names))}"


def _sorted_names(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def _last_import(text: str) -> int:
    return max(
        node.end_lineno or 0 for node in parsed(text).body if isinstance(node, ast.Import | ast.ImportFrom)
    )  # fmt: skip


def _defined(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Import(names=imported) | ast.ImportFrom(names=imported):
            yield from (item.asname or item.name for item in imported)
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
