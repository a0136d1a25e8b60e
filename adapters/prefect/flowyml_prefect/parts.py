"""The text at the beginning of every compiled flow: imports, and the functions that steps and flow call.

A flow without control flow has the text of ``flow_parts``. In a flow with it, the functions of ``walk_parts`` replace
two of those, and its imports, which are those of the whole text, replace the others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from flowyml.core.syntax import parsed

__all__ = ["common_text", "defined_names"]

_REPLACED = ("run_step", "finish_run")
_SETTINGS = 'PIPELINE = DIGEST = ""'
_AFTER_THE_BUNDLE = "  # noqa: E402"
_END = "\n\n# The steps, and the flow."


@cache
def common_text(*, walks: bool) -> str:
    """Return the text before the steps of a flow; ``walks`` for a flow with control flow."""
    text = _text("flow_parts.py")
    return _joined(text, _text("walk_parts.py")) if walks else text


@cache
def defined_names() -> frozenset[str]:
    """Return the names that these texts import and define."""
    texts = (common_text(walks=False), _text("walk_parts.py"))
    return frozenset(name for text in texts for node in parsed(text).body for name in _defined(node))


def _text(name: str) -> str:
    return files("flowyml_prefect").joinpath(name).read_text("utf-8").rstrip() + "\n"


def _joined(text: str, more: str) -> str:
    """Return the first text, with its functions and imports replaced by those of the second one."""
    for node in parsed(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in _REPLACED:
            text = text.replace(f"{ast.get_source_segment(text, node)}\n\n\n", "")
    imports = [node for node in parsed(more).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {str(node.module): node.lineno - 1 for node in imports if isinstance(node, ast.ImportFrom)}
    ours = min(at for module, at in modules.items() if module.startswith("flowyml."))
    source = more.splitlines()
    lines = text.removesuffix(f"{_END}\n").splitlines()
    later = [place for place, line in enumerate(lines) if line.endswith(_AFTER_THE_BUNDLE)]
    found = source[ours : modules["flowyml_prefect.flow_parts"]]
    lines[later[0] : later[-1] + 1] = [line + _AFTER_THE_BUNDLE for line in found]
    lines[lines.index(source[modules["__future__"]]) : lines.index(_SETTINGS)] = source[modules["__future__"] : ours]
    body = "\n".join(source[imports[-1].end_lineno or 0 :]).strip()
    return "\n".join(lines) + f"\n\n\n{body}\n{_END}\n"


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
