"""Compile a plan to the text of an Airflow DAG file: the same text for the same plan, laid out as ruff would.

Every name that a user chose becomes a literal written by ``layout``, a part of a docstring, escaped, or an identifier
made by ``tasks``. So no name can break out, and no name can hide a name that the file itself uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from flowyml.core.errors import DefinitionError
from flowyml.core.schedule import Schedule
from flowyml.core.urls import refuse_credentials
from flowyml.orchestrators.scheduler import declared_schedule
from flowyml.plan.bundle import Bundle
from flowyml.plan.layout import Group, Pair, Part, Text, docstring, source, text_literal, value
from flowyml.plan.marks import marked
from flowyml.plan.model import FromEither, FromStep, Plan
from flowyml_airflow.beside import plain_bundle, plain_files, runtime
from flowyml_airflow.dag_file import operators, parts
from flowyml_airflow.dag_file.arguments import asks_for_pod, called_back, grows, tries_again
from flowyml_airflow.dag_file.docs import dag_docs, graph_docs
from flowyml_airflow.dag_file.tasks import TaskTexts
from flowyml_airflow.graph import TaskGraph
from flowyml_airflow.links import LINK, LINK_IMPORTS, check_template
from flowyml_airflow.names import (
    BUNDLES_FOLDER,
    START_TASK,
    TAG,
    dag_id,
    development_id,
    development_name,
    task_id,
    version_note,
)
from flowyml_airflow.options import (
    DAG_ARGUMENTS,
    DAG_CALLBACKS,
    TASK_ARGUMENTS,
    TASK_CALLBACKS,
    pipeline_options,
    step_options,
)
from flowyml_airflow.parameters import param
from flowyml_airflow.schedule import (
    asset_classes,
    check_schedule,
    delta,
    has_named_assets,
    schedule_arguments,
    timetable_class,
)

__all__ = ["CompiledDag", "compile_dag"]

# Airflow reads `.airflowignore` as glob patterns or, by default before 3.0, as regular expressions. This is both, and
# stands for all files in its folder.
_IGNORE = b"[A-Za-z0-9_.]*\n"
_LONGEST_TAG = 100  # source: airflow.models.dag.DagTag


@dataclass(frozen=True, kw_only=True)
class CompiledDag:
    """A DAG file and its bundle, without FlowyML's runtime.

    ``version`` changes with both, ``structure`` with the DAG in the file: not if only the code has changed.
    """

    dag_id: str
    version: str
    structure: str
    text: str
    bundle: Bundle

    @property
    def filename(self) -> str:
        """The name of the DAG file."""
        return f"{self.dag_id}.py"

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """The files for the DAGs folder, by relative path. The DAG file is first here and is written last."""
        return {
            self.filename: self.text.encode(),
            **plain_files(self.dag_id, self.bundle),
            f"{BUNDLES_FOLDER}/{runtime().name}": runtime().data,
            f"{BUNDLES_FOLDER}/.airflowignore": marked(_IGNORE, ".airflowignore"),
        }


def compile_dag(
    bundle: Bundle,
    *,
    schedule: Schedule | Literal["declared"] | None = "declared",
    python: str | None = None,
    artifacts: str | None = None,
    artifact_links: str | None = None,
    development: bool = False,
) -> CompiledDag:
    """Compile a bundle's plan to a DAG; with ``development`` to the DAG for code that is not deployed.

    ``schedule`` is by default the one that the pipeline declares; None for a DAG without one. ``python`` is the
    interpreter that runs the steps on the workers, by default Airflow's own. ``artifacts`` is the store for large
    outputs, by default ``FLOWYML_ARTIFACTS`` of the workers; ``artifact_links`` is the address of an output for a
    browser, with ``{key}`` in it. The pipeline's own options take precedence. Raises ``DefinitionError``,
    ``UnknownOptionError`` and ``ScheduleError``; ``ConfigurationError`` for credentials in a URL.
    """
    name = bundle.plan.name
    identity = (development_id(name), development_name(name)) if development else (dag_id(name), name)
    target = {"python": python, "artifacts": artifacts, "artifact_links": artifact_links}
    options = {**target, **pipeline_options(bundle.plan)}
    refuse_credentials(options["artifacts"] or "", "artifacts")
    check_template(options["artifact_links"])
    when = declared_schedule(bundle.plan) if schedule == "declared" else schedule
    plain = plain_bundle(bundle)
    dag = _Dag(plain, when, options, identity)
    version = hashlib.sha256(dag.text("").encode()).hexdigest()[:12]
    return CompiledDag(dag_id=dag.id, version=version, structure=dag.structure, text=dag.text(version), bundle=plain)


class _Dag:
    """Writes the text of one DAG file."""

    def __init__(
        self, bundle: Bundle, schedule: Schedule | None, options: Mapping[str, Any], identity: tuple[str, str]
    ) -> None:
        self.id, self.shown_name = identity
        self.bundle = bundle
        self.plan = bundle.plan
        self.schedule = schedule
        self.options = {**options, "is_paused_upon_creation": True} if schedule and schedule.paused else options
        self.graph = TaskGraph(self.plan)
        check_schedule(self.plan, schedule)
        self._tasks = TaskTexts(self.graph, links=bool(options["artifact_links"]))
        self._body = "".join(self._tasks.text())
        self._operator_imports = self._tasks.names.imports.text()
        self._graph = graph_docs(self.plan)

    @cached_property
    def structure(self) -> str:
        """A digest of the tasks, parameters, schedule and options."""
        return hashlib.sha256(self._dag("").encode()).hexdigest()[:12]

    def _dag(self, version: str) -> str:
        return f"with {source(Group('DAG(', list(self._arguments(version)), ')'))}:\n{self._body}"

    def text(self, version: str) -> str:
        """Return the whole file. Its last line is FlowyML's mark, with the facts that are read back from it."""
        constants = (
            f'RUNTIME = Path(__file__).parent / "{BUNDLES_FOLDER}" / {text_literal(runtime().name)}\n'
            f"CODE = {text_literal(self.bundle.digest)}  # of the files of the steps\n"
            f"PYTHON = {_text_or(self.options['python'], 'sys.executable')}  # runs the steps\n"
            f"ARTIFACTS = {_text_or(self.options['artifacts'], 'None')}  # takes large outputs; "
            f"None: as FLOWYML_ARTIFACTS says on the workers\n"
        )
        if links := self.options["artifact_links"]:
            constants += f"ARTIFACT_LINKS = {text_literal(links)}  # where a browser finds them\n"
        blocks = [parts.WORKER, *self._step_parts(), *self._flow_parts(), *self._link_parts()]
        if self.plan.hooks:
            blocks.append(parts.HOOKS)
        if any(map(grows, self._tasks.policies)):
            blocks.append(parts.BACKOFF)
        if any(asks_for_pod(step.resources) for step in self.plan):
            blocks.append(parts.POD)
        if self._calls_back:
            blocks.append(parts.CALLBACK)
        if has_code := any(map(operators.has_code, self.plan)):
            blocks.append(parts.CODE)
        airflow = [name for name in ("DAG", "BaseOperator") if name == "DAG" or any(name in block for block in blocks)]
        imports = parts.IMPORTS.format(
            datetime=self._datetime_names(),
            inspect="from inspect import signature\n" if has_code else "",
            airflow=", ".join([*airflow, *(["Param"] if self.plan.parameters else [])]),
        )
        if self.schedule:
            imports += "\n" + parts.TIMETABLE.format(timetable=timetable_class(self.schedule))
        elif assets := asset_classes(self.options.get("schedule")):
            named = has_named_assets(self.options["schedule"])
            dataset = ", ".join(
                "Dataset" if named and asset == "Asset" else f"{asset.replace('Asset', 'Dataset')} as {asset}"
                for asset in assets
            )
            imports += "\n" + parts.ASSETS.format(asset=", ".join(assets), dataset=dataset)
            imports += parts.NAMED_ASSETS if named else ""
        imports += "".join(f"\n{part}" for part in self._flow_imports()) + self._operator_imports
        docs = f"{docstring(dag_docs(self.graph, self.options, self.structure, self._graph))}\n"
        blocks.insert(0, f"{docs}\n{imports}\n{constants}")
        return marked(
            "\n\n".join([*blocks, f"{self._dag(version)}\n"]).encode(), "dag.py", self._facts(version)
        ).decode()

    def _flow_imports(self) -> Iterator[str]:
        if any(self._link_parts()):
            yield LINK_IMPORTS
        if self._kinds & {"choice"}:
            yield parts.BRANCH_IMPORTS
        if any(len(self.graph.members(loop)) > 1 for loop in self.graph.loops):
            yield parts.GROUP_IMPORTS
        if self.graph.sections:
            yield parts.SECTION_IMPORTS
        if self._has_external:
            yield parts.EXTERNAL_IMPORTS

    def _step_parts(self) -> Iterator[str]:
        """Yield the classes of tasks for this DAG."""
        steps = [task for task in self.graph.tasks if task.kind == "step" and not self.graph.is_operator(task)]
        if any(self.graph.external_dag(task) is None for task in steps):
            yield parts.STEP
        if "together" in self._kinds:
            yield parts.TOGETHER

    def _link_parts(self) -> Iterator[str]:
        """Yield the line that gives links to the classes of this file that run steps."""
        if self.options["artifact_links"] and (kinds := [part.split("(")[0] for part in self._step_parts()]):
            yield LINK.format(kinds=".link = ".join(kind.removeprefix("class ") for kind in kinds))

    def _flow_parts(self) -> Iterator[str]:
        in_loops = [task for loop in self.graph.loops for task in self.graph.members(loop)]
        if any(task.kind == "step" and not self.graph.is_operator(task) for task in in_loops):
            yield parts.ITEM_STEP
        if any(task.kind == "together" for task in in_loops):
            yield parts.ITEM_TOGETHER
        if "items" in self._kinds:
            yield parts.ITEMS
        if "choice" in self._kinds:
            yield parts.CHOOSE
        if self._has_external:
            yield parts.EXTERNAL
        if self._tasks.unsettled:
            yield parts.SETTLED
        if self._tasks.watched:
            yield parts.WATCHER

    @property
    def _kinds(self) -> set[str]:
        return {task.kind for task in self.graph.tasks}

    @property
    def _has_external(self) -> bool:
        return any(self.graph.external_dag(task) is not None for task in self.graph.tasks)

    @property
    def _calls_back(self) -> bool:
        callbacks = {*DAG_CALLBACKS, *TASK_CALLBACKS}
        return any(options.get(name) for options in (self.options, *map(step_options, self.plan)) for name in callbacks)

    def _datetime_names(self) -> str:
        times = [self.plan.timeout_seconds, *map(self.graph.timeout, self.graph.tasks)]
        times += [self.schedule.interval_seconds] if self.schedule else []
        has_delta = any(time is not None for time in times) or any(map(tries_again, self._tasks.policies))
        has_delta = has_delta or any(map(operators.has_delta, self.plan))
        return "datetime, timedelta, timezone" if has_delta else "datetime, timezone"

    def _facts(self, version: str) -> dict[str, Any]:
        """Return the facts that FlowyML reads back from a DAG file. Steps are task ids; the timeout is in seconds."""
        return {
            "pipeline": self.plan.name,
            "origin": self.bundle.origin.to_dict() if self.bundle.origin else None,
            "code": self.bundle.code_digest,
            "version": version,
            "structure": self.structure,
            "bundle": self.bundle.digest,
            "bundle_file": self.bundle.filename,
            "runtime": runtime().name,
            "files": list(plain_files(self.id, self.bundle)),
            "python": self.options["python"],
            "artifacts": self.options["artifacts"],
            **({"artifact_links": links} if (links := self.options["artifact_links"]) else {}),
            "steps": list(dict.fromkeys(self.graph.id(self.graph.steps[step.name]) for step in self.plan)),
            "timeout": self.plan.timeout_seconds,
            "outputs": {out.name: self._place(out.source) for out in self.plan.outputs},
            "xcoms": self._xcoms(),
            "hooks": bool(self.plan.hooks),
            "schedule": self.schedule.to_dict(declared=True) if self.schedule else None,
            **({"cached": cached} if (cached := self._cached()) else {}),
            **({"operators": True} if self.graph.operators else {}),
            **self._together_facts(),
            **self._flow_facts(),
            "waits": self._waits(),
        }

    def _xcoms(self) -> dict[str, dict[str, str]]:
        """Return, by task of a single step, the XCom keys of its outputs by their names."""
        tasks = [task for task in self.graph.tasks if task.kind == "step" and not self.graph.is_operator(task)]
        return {
            self.graph.id(task): {
                name: self.graph.key(FromStep(task.name, name)) for name in self.graph.step(task).outputs
            }
            for task in tasks
        }

    def _cached(self) -> list[str]:
        """Return the tasks of single steps whose results may come from the cache."""
        return [task_id(step.name) for step in self.plan if step.caching and not step.execution_group]

    def _waits(self) -> dict[str, list[str]]:
        """Return, by task, the tasks that it waits for; tasks are ordered so that each comes after those."""
        graph = self.graph
        before_of = {graph.id(task): list(dict.fromkeys(map(graph.id, graph.waited_for(task)))) for task in graph.tasks}
        if self.plan.hooks:
            before_of |= {graph.id(root): [START_TASK] for root in graph.roots()}
        return {task: before for task, before in before_of.items() if before}

    def _place(self, output: FromStep | FromEither) -> Any:
        """Return the address of an output: task, key, and the loops that collect it.

        A list of addresses for an ``either``.
        """
        if isinstance(output, FromEither):
            return {"either": [self._place(choice) for choice in output.outputs]}
        loops = self.plan.structure.loops_between(output.step, "")
        return [self.graph.id(self.graph.steps[output.step]), self.graph.key(output), *(loop.name for loop in loops)]

    def _together_facts(self) -> dict[str, Any]:
        """Return the tasks of execution groups, with the names of their steps."""
        tasks = [task for task in self.graph.tasks if task.kind == "together"]
        names_of = {self.graph.id(task): [step.name for step in self.graph.runs(task)] for task in tasks}
        return {"together": names_of} if names_of else {}

    def _flow_facts(self) -> dict[str, Any]:
        """Return the facts about control flow: tasks that run no step, and the tasks of each loop."""
        if not self.graph.has_control_flow:
            return {}
        helpers = [self.graph.id(task) for task in self.graph.tasks if not self.graph.runs(task)]
        loops = {
            loop.name: {
                "items": self.graph.ids.items[loop.name] if self.graph.has_items_task(loop) else None,
                "tasks": [self.graph.id(task) for task in self.graph.members(loop)],
                **({"goes_on": True} if loop.on_item_error == "continue" else {}),
            }
            for loop in self.graph.loops
        }
        ids = self.graph.ids
        helpers += [ids.settled] if self._tasks.unsettled else []
        watchers = [ids.watcher] if self._tasks.watched else []
        watched: dict[str, Any] = {"watcher": ids.watcher} if watchers else {}
        if cleanup := [self.graph.id(task) for task in self.graph.tasks if self.graph.is_cleanup(task)]:
            watched["cleanup"] = cleanup
        return {"helpers": [*helpers, *watchers], **watched, **({"loops": loops} if loops else {})}

    def _arguments(self, version: str) -> Iterator[Part]:
        """Yield the arguments of the DAG."""
        plan, options = self.plan, self.options
        yield f"dag_id={text_literal(self.id)}"
        if self.id != self.shown_name:
            yield f"dag_display_name={text_literal(self.shown_name)}"
        about = options.get("description") or plan.description.partition("\n")[0]
        yield Pair("description=", Text(f"{about} {version_note(version)}".lstrip()))
        yield "doc_md=__doc__"
        yield Pair("tags=", value(_tags(plan, options)))
        yield from schedule_arguments(self.schedule, options.get("schedule"))
        if plan.timeout_seconds is not None:
            yield f"dagrun_timeout={delta(plan.timeout_seconds)}"
        yield from (Pair(f"{name}=", value(options[name])) for name in DAG_ARGUMENTS if name in options)
        common = {name: options[name] for name in TASK_ARGUMENTS if name in options}
        yield Pair("default_args=", value({**common, "retries": 0}))  # else [core] default_task_retries would apply
        if plan.parameters:
            values = self.schedule.parameters if self.schedule else {}
            yield Pair("params=", Group("{", [param(parameter, values) for parameter in plan.parameters], "}"))
        yield from called_back(options, DAG_CALLBACKS, ["on_end"] if plan.hooks else [])


def _tags(plan: Plan, options: Mapping[str, Any]) -> list[str]:
    tags = list(dict.fromkeys([*plan.tags, *options.get("tags", ()), TAG]))
    for tag in tags:
        if len(tag) > _LONGEST_TAG:
            raise DefinitionError(f"pipeline {plan.name!r}: tag {tag[:30]!r}… is longer than Airflow's {_LONGEST_TAG}.")
    return tags


def _text_or(text: str | None, otherwise: str) -> str:
    return otherwise if text is None else text_literal(text)
