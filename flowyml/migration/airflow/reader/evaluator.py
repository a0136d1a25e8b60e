"""The evaluator as a whole: Python, Airflow's names, and a DAG file as its main module."""

from __future__ import annotations

import ast
from typing import Any

from flowyml.core.errors import MissingExtraError
from flowyml.migration.airflow.model import DagWarning
from flowyml.migration.airflow.reader.api.world import Airflow
from flowyml.migration.airflow.reader.files import Files
from flowyml.migration.airflow.reader.imports import Imports
from flowyml.migration.airflow.reader.library.built_in import BUILTINS
from flowyml.migration.airflow.reader.library.items import sort_in_place
from flowyml.migration.airflow.reader.library.text import format_text
from flowyml.migration.airflow.reader.loops import Abandoned, Break, Continue, Return
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.nodes import Dag
from flowyml.migration.airflow.reader.values import Arguments, Given, Module, OutOfSteps, Raised, Scope, hard

__all__ = ["Evaluator"]


class Evaluator(Imports):
    """Reads one DAG file. After `execute`, ``dags`` are those that Airflow's DagBag would find."""

    def __init__(self, files: Files, options: Options) -> None:
        super().__init__(files, options)
        self.airflow = Airflow(self)
        self.world = self.airflow
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
        for value in self.module.scope.names.values():
            options = getattr(hard(value), "options", ())
            found.update(id(one) for one in options if isinstance(one, Dag))
        kept = [dag for dag in self.airflow.dags if dag.ready and (dag.registered or id(dag) in found)]
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
            items = hard(arguments.value("mapping", 0))
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
