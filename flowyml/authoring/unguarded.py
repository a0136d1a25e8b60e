"""Find work that a script does when it is loaded: each process of a run loads it, and repeats that work."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from flowyml.core.syntax import parsed
from flowyml.runtime.loading import ENDS_LOADING

__all__ = ["warn_of_work", "work_in"]

logger = logging.getLogger("flowyml.bundle")

# Set-up calls that each process needs: `logging.basicConfig`, `sys.path.append`, `np.random.seed`.
_SETS_UP = re.compile(
    r"(add|add_step|append|configure|disable|enable|extend|init|insert|install|manual_seed|patch|register|seed|update|"
    r"use)|(add|basic|configure|disable|enable|filter|set)(?=[A-Z])\w*|(configure|register|set|use)_\w+|"
    r"(filterwarnings|load_dotenv|seterr|setdefault|setlocale|simplefilter)"
)
_TO_DATABASES = {"db", "conn", "connection", "cursor", "session", "table"}  # whose insert and update is work
# Calls whose value differs from process to process, and those that start one.
_DIFFERS = {
    "Popen", "getpid", "monotonic", "now", "perf_counter", "randint", "random", "time", "time_ns", "today",
    "token_hex", "urandom", "utcnow", "uuid1", "uuid4",
}  # fmt: skip
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_SHOWN = 60


def warn_of_work(path: Path) -> None:
    """Warn about a script that does work when it is loaded, once per file and process."""
    if path.suffix == ".py" and path.is_file():
        _warn_once(path.resolve())


@cache
def _warn_once(path: Path) -> None:
    found = work_in(path.read_bytes())
    if not found:
        return
    line, text = found[0]
    others = ", ".join(str(number) for number, _ in found[1:6])
    lines = f"do lines {others}" if len(found) > 2 else f"does line {others}"
    more = f" So {lines}{' and more' if len(found) > 6 else ''}." if others else ""
    logger.warning(
        "%s, line %d: `%s` runs again in every process that loads this file, such as that of each step.%s Put it under "
        "`if __name__ == '__main__':`, or into a step.", path.name, line, text, more,
    )  # fmt: skip


def work_in(source: bytes) -> Sequence[tuple[int, str]]:
    r"""The lines with work at module level, with their text.

    These are calls for their effect, ``with`` and loops that define nothing, and values that differ from process to
    process. Code after the line that runs a pipeline is never loaded, nor is code under ``if __name__ == …``.

    >>> work_in(b"import random, sys\nsys.path.append('lib')\nprint('hello')\nSALT = random.random()\n")
    [(3, "print('hello')"), (4, 'SALT = random.random()')]
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of the user's code, which is not compiled here
            tree = parsed(source)
    except (SyntaxError, ValueError):
        return []
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return [(node.lineno, _first_line(node)) for node in _work(_until_run(tree.body, modules))]


def _until_run(body: Sequence[ast.stmt], modules: set[str]) -> Iterator[ast.stmt]:
    for statement in body:
        if _is_guard(statement):
            continue
        if not isinstance(statement, _DEFINES) and any(_runs_pipeline(node, modules) for node in ast.walk(statement)):
            return
        yield statement


def _work(body: Iterable[ast.stmt | ast.ExceptHandler]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call) and not _sets_up(node.value):
                yield node
        elif isinstance(node, ast.With | ast.For | ast.While):
            if not any(isinstance(inner, _DEFINES) or _sets_up(inner) for inner in ast.walk(node)):
                yield node
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            if node.value is not None and any(_differs(inner) for inner in _evaluated(node.value)):
                yield node
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler) and not _is_guard(node):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from _work(getattr(node, part, []))


def _evaluated(value: ast.expr) -> Iterator[ast.AST]:
    """Yield the expressions that are evaluated with a value: not the body of a lambda."""
    yield value
    for child in ast.iter_child_nodes(value) if not isinstance(value, ast.Lambda) else ():
        yield from _evaluated(child) if isinstance(child, ast.expr) else ast.walk(child)


def _differs(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _name_of(node) in _DIFFERS


def _runs_pipeline(node: ast.AST, modules: set[str]) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ENDS_LOADING):
        return False
    root = node.func.value
    while isinstance(root, ast.Attribute | ast.Call):
        root = root.value if isinstance(root, ast.Attribute) else root.func
    return not (isinstance(root, ast.Name) and root.id in modules)  # not subprocess.run, asyncio.run


def _is_guard(node: ast.AST) -> bool:
    """``if __name__ == "__main__":``"""
    names = (
        {inner.id for inner in ast.walk(node.test) if isinstance(inner, ast.Name)} if isinstance(node, ast.If) else ()
    )
    return bool({"__name__", "TYPE_CHECKING"} & {*names})


def _sets_up(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or _SETS_UP.fullmatch(_name_of(node)) is None:
        return False
    return not (isinstance(node.func, ast.Attribute) and _last_name(node.func.value) in _TO_DATABASES)


def _last_name(value: ast.expr) -> str:
    return value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""


def _name_of(call: ast.Call) -> str:
    return _last_name(call.func)


def _first_line(node: ast.stmt) -> str:
    line = ast.unparse(node).partition("\n")[0]
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
