"""The evaluator as a whole: Python, imports, Airflow's names, and a DAG file as its main module."""

from __future__ import annotations

import ast
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowyml.core.errors import MissingExtraError
from flowyml.migration.airflow.model import DagWarning
from flowyml.migration.airflow.reader.api.world import Airflow
from flowyml.migration.airflow.reader.calls import Calls
from flowyml.migration.airflow.reader.files import Files, Refused
from flowyml.migration.airflow.reader.library.built_in import BUILTINS
from flowyml.migration.airflow.reader.library.items import sort_in_place
from flowyml.migration.airflow.reader.library.text import format_text
from flowyml.migration.airflow.reader.loops import Abandoned, Break, Continue, Return
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.nodes import Dag
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Either,
    Foreign,
    Given,
    Module,
    OutOfSteps,
    Raised,
    Scope,
    hard,
)


class Imports(Calls):
    """Imports. A module of the root is evaluated when it is first imported; any other is foreign."""

    def imported(self, name: str, node: ast.AST) -> Any:
        """Return the module of ``import name``."""
        if _comes_with_airflow(name):
            return Foreign(name)
        path = self.files.module(name)
        if path is None:
            return Foreign(name)
        return self.load(name, path, node)

    def is_there(self, path: str) -> bool:
        """Return whether a module can certainly be imported."""
        top = path.split(".", maxsplit=1)[0]
        return _comes_with_airflow(path) or top in _REQUIRED or self.files.module(path) is not None

    def submodule(self, module: Module, name: str) -> Any:
        """Return a module below a package of the root."""
        base = Path(module.path)
        folder = base if base.is_dir() else base.parent
        if base.name != "__init__.py" and not base.is_dir():
            return None
        for path in (folder / name / "__init__.py", folder / f"{name}.py", folder / name):
            if name.isidentifier() and self.files.inside(str(path)) and path.exists():
                return self.load(f"{module.name}.{name}", path, module.scope.names.get("__node__", ast.Pass()))
        return None

    def load(self, name: str, path: Path, node: ast.AST) -> Module:
        """Return a module of the root, evaluated when it is first imported."""
        key = str(path)
        if key in self.modules:
            return self.modules[key]
        text = "" if path.is_dir() else self._read(path, node)
        package = name if path.name == "__init__.py" or path.is_dir() else name.rpartition(".")[0]
        scope = Scope({"__name__": name, "__file__": key, "__package__": package}, kind="module")
        module = Module(name, key, self.files.relative(path), text, scope, package)
        self.modules[key] = module
        if text:
            self._evaluate(module, node)
        return module

    def _read(self, path: Path, node: ast.AST) -> str:
        try:
            return self.files.source(path)
        except Refused as error:
            self.warn("unread", str(error), node)
            return ""

    def _evaluate(self, module: Module, node: ast.AST) -> None:
        try:
            tree = _parsed(module.text, module.place)
        except SyntaxError as error:
            self.warn("unread", f"{module.place}: {error.msg}", node)
            return
        module.scope.names["__doc__"] = ast.get_docstring(tree, clean=False)
        if self.too_deep:
            return
        catching, self.catching = self.catching, []
        try:
            with self.inside(module.scope, module):
                self.block(tree.body)
        except (Return, Abandoned):
            pass
        except Raised as error:
            self.catching = catching
            if self.catches(error.kind):
                raise
            self.warn("raises", f"importing {module.name} raises {error}", node)
        finally:
            self.catching = catching

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.module == "__future__":
            return
        name = self._absolute(node)
        source = self._relative(node) if node.level else self.imported(name, node)
        for alias in node.names:
            if alias.name == "*":
                self._star(source, name)
            else:
                self.bind(alias.asname or alias.name, self._member_of(source, name, alias.name, node))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.package.split(".") if self.module.package else []
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def _relative(self, node: ast.ImportFrom) -> Any:
        folder = Path(self.module.path).parent
        for _ in range(node.level - 1):
            folder = folder.parent
        base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
        for path in (base / "__init__.py", base.with_name(base.name + ".py"), base):
            if self.files.inside(str(path)) and path.exists():
                return self.load(self._absolute(node) or base.name, path, node)
        return Foreign(self._absolute(node) or "?")

    def _star(self, source: Any, name: str) -> None:
        if not isinstance(source, Module):
            self.module.stars.append(source.path if isinstance(source, Foreign) else name)
            return
        names = source.scope.names
        public = names.get("__all__")
        for one, value in list(names.items()):
            wanted = one in public if isinstance(public, (list, tuple)) else not str(one).startswith("_")
            if wanted:
                self.bind(one, value)
        self.module.stars += source.stars

    def _member_of(self, source: Any, module: str, name: str, node: ast.AST) -> Any:
        if isinstance(source, Module):
            if name in source.scope.names:
                return source.scope.names[name]
            found = self.submodule(source, name)
            if found is not None:
                return found
            if source.stars:
                return Foreign(f"{source.stars[-1]}.{name}")
            if Path(source.path).is_dir() or not source.text.strip():
                other = self.imported(f"{module}.{name}", node)
                return other if isinstance(other, Module) else Foreign(f"{module}.{name}")
            if self.catches("ImportError"):
                raise Raised("ImportError", f"cannot import {name} from {module}")
            return Foreign(f"{module}.{name}")
        return self.attribute(source, name, node)


_REQUIRED = frozenset({"attr", "attrs", "croniter", "dateutil", "jinja2", "packaging", "pendulum", "requests", "yaml"})
"""Libraries that Airflow itself requires."""


@lru_cache(maxsize=256)
def _parsed(text: str, name: str) -> ast.Module:
    """Parse a file, or return its tree from a cache: many DAG files import the same modules."""
    return parse(text, name)


def parse(text: str, name: str) -> ast.Module:
    """Parse a file. Raises SyntaxError, also for a file that nests too deeply or is not text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, filename=name)
    except (RecursionError, MemoryError, ValueError) as error:
        raise SyntaxError(f"cannot be parsed: {error}") from error


def _comes_with_airflow(module: str) -> bool:
    top = module.split(".", maxsplit=1)[0]
    return top in ("airflow", "builtins") or (top in sys.stdlib_module_names and top != "this")


class Evaluator(Imports):
    """Reads one DAG file. After `execute`, ``dags`` are those that Airflow's DagBag would find."""

    def __init__(self, files: Files, options: Options) -> None:
        super().__init__(files, options)
        self.world = Airflow(self)
        self.builtins = BUILTINS
        self.reason: str | None = None

    def execute(self, tree: ast.Module, text: str) -> None:
        """Evaluate the module. ``reason`` says why it ended early, if it did."""
        path = self.files.start
        names: dict[Any, Any] = {
            "__name__": path.stem,
            "__file__": str(path),
            "__doc__": ast.get_docstring(tree, clean=False),
        }
        place = self.files.relative(path)
        package = ".".join(place.split("/")[:-1])
        module = Module("", str(path), place, text, Scope(names, kind="module"), package, main=True)
        self.modules[str(path)] = module
        self.module, self.scope = module, module.scope
        end = ast.Pass(lineno=text.count("\n") + 1, end_lineno=1, col_offset=0, end_col_offset=0)
        try:
            for node in tree.body:
                self._guarded_statement(node, module)
        except Raised as error:
            self.module, self.scope = module, module.scope
            self.reason = f"importing it raises {error}"
        except (Return, Abandoned, Break, Continue):
            self.reason = "it ends early"
        except OutOfSteps as error:
            self.module, self.scope = module, module.scope
            self.context.dags.clear()
            self.warn("steps", f"evaluation stopped after {error}: what follows is not read", end)
        except RecursionError:
            self.module, self.scope = module, module.scope
            self.context.dags.clear()
            self.warn("steps", "evaluation stopped: expressions nest too deeply", end)
        self.unfinished()
        self.module, self.scope = module, module.scope

    def _guarded_statement(self, node: ast.stmt, module: Module) -> None:
        """Execute one statement of the file.

        A fault of the reader's own is reported, and the rest of the file is read.
        """
        try:
            self.block([node])
        except (Raised, Return, Abandoned, Break, Continue, OutOfSteps, RecursionError, MissingExtraError):
            raise
        except Exception as error:
            self.module, self.scope, self.depth = module, module.scope, 0
            self.context.dags.clear()
            self.context.groups.clear()
            self.context.brackets.clear()
            self.warn("unread", f"the reader failed here: {type(error).__name__}: {error}", node)

    @property
    def dags(self) -> list[Dag]:
        """The DAGs that the module has or that registered themselves, in the order of their creation."""
        found = {id(hard(value)) for value in self.module.scope.names.values()}
        for value in map(hard, self.module.scope.names.values()):
            if isinstance(value, Either):
                found.update(id(one) for one in value.options if isinstance(one, Dag))
        kept = [dag for dag in self.world.dags if dag.ready and (dag.registered or id(dag) in found)]
        kept += [one for dag in kept for one in _below(dag) if one not in kept]
        last: dict[Any, Dag] = {}
        for dag in kept:
            if (circle := dag.circle()) and dag.leave_out_unsure():
                text = f"edges that are not certain make a circle at {', '.join(circle[:5])}: they are left out"
                self.module = dag.module or self.module
                dag.warnings.append(DagWarning("unknown-edge", text, self.place(dag.node or ast.Pass())))
            if all(task.known for task in dag.tasks.values()) and (circle := dag.circle()):
                text = f"Airflow refuses DAG {dag.dag_id!r}: its edges make a circle at {', '.join(circle[:5])}"
                self.warnings.append(DagWarning("raises", text, self.place(dag.node or ast.Pass())))
                self.reason = text if len(kept) == 1 else self.reason
                continue
            if dag.dag_id in last:
                text = f"the file makes several DAGs {dag.dag_id!r}: Airflow keeps one of them, here it is the last"
                self.module = dag.module or self.module
                dag.warnings.append(DagWarning("duplicate", text, self.place(dag.node or ast.Pass())))
            last[dag.dag_id] = dag
        return list(last.values())

    def call_method(self, value: Any, name: str, arguments: Arguments, node: ast.AST) -> Any:
        if name == "format" and isinstance(value, str):
            return self.attempt(node, format_text, self, value, arguments, node)
        if name == "format_map" and isinstance(value, str):
            items = self.as_dict(arguments.value("mapping", 0), node)
            named = {str(key): Given(one) for key, one in items.items()} if isinstance(items, dict) else {}
            return self.attempt(node, format_text, self, value, Arguments([], named), node)
        if name == "sort" and isinstance(value, list):
            return sort_in_place(self, value, arguments, node)
        return super().call_method(value, name, arguments, node)


def _below(dag: Dag) -> list[Dag]:
    """Return the DAGs in its SubDagOperators."""
    found: list[Dag] = []
    for task in dag.tasks.values():
        inner = hard(task.arguments.value("subdag"))
        if isinstance(inner, Dag) and inner not in found:
            found += [inner, *_below(inner)]
    return found
