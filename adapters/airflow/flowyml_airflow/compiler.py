"""Plan to the text of an Airflow DAG file: pure, the same text for the same plan, laid out as ruff would.

Every name that a user chose stands in the text as a literal that ``layout`` wrote, within a docstring that escapes
what could end it, or as an identifier that ``_Names`` made. So no name can break out, and none can hide a name that
the file itself uses.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from flowyml.core.errors import DefinitionError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.core.urls import refuse_credentials
from flowyml.plan.bundle import Bundle
from flowyml.plan.layout import Group, Pair, Part, Text, source, text_literal, value
from flowyml.plan.marks import marked
from flowyml.plan.model import FromStep, Plan, Step
from flowyml.plan.names import identifier
from flowyml_airflow import dag_parts
from flowyml_airflow.dag_docs import dag_docs, docstring, step_docs
from flowyml_airflow.names import (
    BUNDLES_FOLDER,
    START_TASK,
    dag_id,
    development_id,
    development_name,
    task_id,
    xcom_key,
)
from flowyml_airflow.options import (
    DAG_ARGUMENTS,
    DAG_CALLBACKS,
    STEP_ARGUMENTS,
    TASK_ARGUMENTS,
    TASK_CALLBACKS,
    callbacks,
    pipeline_options,
    step_options,
)
from flowyml_airflow.parameters import param
from flowyml_airflow.schedule import check_schedule, delta, schedule_arguments, timetable_class

__all__ = ["TAG", "CompiledDag", "compile_dag", "version_tag"]

TAG = "flowyml"  # every DAG that FlowyML compiled has it

# Airflow reads `.airflowignore` as glob patterns or, by default before 3.0, as regular expressions. This is both. A
# bundle that is just being written has the second name: see `folder`.
_IGNORE = b"[a-z0-9]*.pyz\n.new-*\n"
_LONGEST_TAG = 100  # source: airflow.models.dag.DagTag
_RESERVED = frozenset({
    "ARTIFACTS", "BUNDLE", "BaseOperator", "CronTriggerTimetable", "DAG", "DeltaTriggerTimetable", "PYTHON", "Param",
    "Path", "Start", "Step", "annotations", "backoff", "callback", "datetime", "on_end", "pod", "run_path", "sys",
    "timedelta", "timezone", "worker",
})  # fmt: skip


def version_tag(version: str) -> str:
    """The tag of a DAG that says which version of its file Airflow has parsed."""
    return f"{TAG}:{version}"


@dataclass(frozen=True, kw_only=True)
class CompiledDag:
    """A DAG file and its bundle. ``version`` changes with anything in either."""

    dag_id: str
    version: str
    text: str
    bundle: Bundle

    @property
    def filename(self) -> str:
        """The name of the DAG file."""
        return f"{self.dag_id}.py"

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """What to put into the DAGs folder, by relative path, the DAG file first. It goes there last."""
        return {
            self.filename: self.text.encode(),
            f"{BUNDLES_FOLDER}/{self.bundle.filename}": self.bundle.data,
            f"{BUNDLES_FOLDER}/.airflowignore": marked(_IGNORE, ".airflowignore"),
        }


def compile_dag(
    bundle: Bundle,
    *,
    schedule: Schedule | None = None,
    python: str | None = None,
    artifacts: str | None = None,
    development: bool = False,
) -> CompiledDag:
    """Compile a bundle's plan to a DAG; ``development`` makes the one for code that is not deployed.

    ``python`` is the interpreter that runs the steps on the workers, by default Airflow's own; ``artifacts`` is where
    large outputs go, by default what ``FLOWYML_ARTIFACTS`` says on the workers. The pipeline's own options win. Raises
    ``DefinitionError``, ``UnknownOptionError`` and ``ScheduleError``; ``ConfigurationError`` for credentials in a URL.
    """
    ours = bundle.with_files(_worker_files())
    name = bundle.plan.name
    identity = (development_id(name), development_name(name)) if development else (dag_id(name), name)
    options = {"python": python, "artifacts": artifacts, **pipeline_options(bundle.plan)}
    refuse_credentials(options["artifacts"] or "", "artifacts")
    dag = _Dag(ours, schedule, options, identity)
    version = hashlib.sha256(f"{dag.text('')}{ours.digest}".encode()).hexdigest()[:12]
    return CompiledDag(dag_id=dag.id, version=version, text=dag.text(version), bundle=ours)


@cache
def _worker_files() -> Mapping[str, bytes]:
    """This package: tasks need its worker, and the file of a pipeline may import any of it."""
    package = Path(__file__).parent
    return {f"{package.name}/{path.name}": path.read_bytes() for path in sorted(package.glob("*.py"))}


class _Names:
    """Variables for the tasks: no two are the same, and none hides another name."""

    def __init__(self, plan: Plan) -> None:
        self._taken = {*_RESERVED, *keyword.kwlist, *dir(builtins)}
        self.start = self._fresh("start")
        self.tasks = {step.name: self._fresh(identifier(step.name)) for step in plan}

    def _fresh(self, wanted: str) -> str:
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted


class _Dag:
    """The text of one DAG file, in the making."""

    def __init__(
        self, bundle: Bundle, schedule: Schedule | None, options: Mapping[str, Any], identity: tuple[str, str]
    ) -> None:
        self.id, self.shown_name = identity
        self.bundle = bundle
        self.plan = bundle.plan
        self.schedule = schedule
        self.options = options
        self.names = _Names(self.plan)
        check_schedule(self.plan, schedule)
        self._body = "".join(self._tasks())

    def text(self, version: str) -> str:
        """The whole file. Its last line is FlowyML's mark, with the facts that are read back."""
        dag = f"with {source(Group('DAG(', list(self._arguments(version)), ')'))}:\n{self._body}"
        constants = (
            f'BUNDLE = Path(__file__).parent / "{BUNDLES_FOLDER}" / {text_literal(self.bundle.filename)}\n'
            f"PYTHON = {_text_or(self.options['python'], 'sys.executable')}  # runs the steps\n"
            f"ARTIFACTS = {_text_or(self.options['artifacts'], 'None')}  # takes large outputs; "
            f"None: as FLOWYML_ARTIFACTS says on the workers\n"
        )
        imports = dag_parts.IMPORTS.format(datetime=self._datetime_names(), airflow=self._airflow_names())
        if self.schedule:
            imports += "\n" + dag_parts.TIMETABLE.format(timetable=timetable_class(self.schedule))
        blocks = [
            f"{docstring(dag_docs(self.plan, self.options, version))}\n{imports}\n{constants}",
            dag_parts.WORKER,
            dag_parts.STEP,
        ]
        if self.plan.hooks:
            blocks.append(dag_parts.HOOKS)
        if any(_grows(step.retry) for step in self.plan):
            blocks.append(dag_parts.BACKOFF)
        if self._asks_for_pods:
            blocks.append(dag_parts.POD)
        if self._calls_back:
            blocks.append(dag_parts.CALLBACK)
        return marked("\n\n".join([*blocks, f"{dag}\n"]).encode(), "dag.py", self._facts(version)).decode()

    @property
    def _asks_for_pods(self) -> bool:
        return any(_asks_for_pod(step.resources) for step in self.plan)

    def _airflow_names(self) -> str:
        return "DAG, BaseOperator, Param" if self.plan.parameters else "DAG, BaseOperator"

    @property
    def _calls_back(self) -> bool:
        callbacks = {*DAG_CALLBACKS, *TASK_CALLBACKS}
        return any(options.get(name) for options in (self.options, *map(step_options, self.plan)) for name in callbacks)

    def _datetime_names(self) -> str:
        times = [self.plan.timeout_seconds, *(step.timeout_seconds for step in self.plan)]
        times += [self.schedule.interval_seconds] if self.schedule else []
        has_delta = any(time is not None for time in times) or any(_tries_again(step.retry) for step in self.plan)
        return "datetime, timedelta, timezone" if has_delta else "datetime, timezone"

    def _facts(self, version: str) -> dict[str, Any]:
        """What FlowyML reads back from a file that it meets. Steps are ids of tasks, the timeout is in seconds."""
        return {
            "pipeline": self.plan.name,
            "origin": self.bundle.origin.to_dict() if self.bundle.origin else None,
            "code": self.bundle.code_digest,
            "version": version,
            "bundle": self.bundle.digest,
            "bundle_file": self.bundle.filename,
            "python": self.options["python"],
            "artifacts": self.options["artifacts"],
            "steps": [task_id(step.name) for step in self.plan],
            "timeout": self.plan.timeout_seconds,
            "outputs": {name: [task_id(out.step), xcom_key(out.output)] for name, out in self.plan.step_outputs},
            "hooks": bool(self.plan.hooks),
            "schedule": self.schedule.to_dict() if self.schedule else None,
        }

    def _arguments(self, version: str) -> Iterator[Part]:
        """The arguments of the DAG."""
        plan, options = self.plan, self.options
        yield f"dag_id={text_literal(self.id)}"
        if self.id != self.shown_name:
            yield f"dag_display_name={text_literal(self.shown_name)}"
        if about := options.get("description") or plan.description.partition("\n")[0]:
            yield Pair("description=", Text(about))
        yield "doc_md=__doc__"
        yield Pair("tags=", value(_tags(plan, options, version)))
        yield from schedule_arguments(self.schedule)
        if plan.timeout_seconds is not None:
            yield f"dagrun_timeout={delta(plan.timeout_seconds)}"
        yield from (Pair(f"{name}=", value(options[name])) for name in DAG_ARGUMENTS if name in options)
        common = {name: options[name] for name in TASK_ARGUMENTS if name in options}
        yield Pair("default_args=", value({**common, "retries": 0}))  # else [core] default_task_retries would hold
        if plan.parameters:
            given = self.schedule.parameters if self.schedule else {}
            yield Pair("params=", Group("{", [param(parameter, given) for parameter in plan.parameters], "}"))
        yield from _callbacks(options, DAG_CALLBACKS, ["on_end"] if plan.hooks else [])

    def _tasks(self) -> Iterator[str]:
        """The steps in the plan's order, and then what waits for what without taking data from it."""
        names = self.names.tasks
        for step in self.plan:
            call = Group("Step(", list(self._task(step)), ")")
            yield f"    {source(Pair(f'{names[step.name]} = ', call), 1)}\n"
        waits = [
            _wait(names[step.name], [names[name] for name in _only_after(step)])
            for step in self.plan
            if _only_after(step)
        ]
        if self.plan.hooks:
            roots = [names[step.name] for step in self.plan if not step.upstream]
            yield f"    {source(Pair(f'{self.names.start} = ', self._start()), 1)}\n"
            waits.insert(0, Pair(f"{self.names.start} >> ", _one_or_list(roots)))
        if waits:
            yield "\n" + "".join(f"    {source(wait, 1)}\n" for wait in waits)

    def _start(self) -> Part:
        """The task of ``on_pipeline_start``. It is tried as often as the step that is tried most often.

        A hook that raises does not fail it; it fails only where no step could run either.
        """
        policies = [step.retry for step in self.plan if step.retry]
        most = max(policies, key=lambda policy: policy.max_attempts, default=None)
        return Group("Start(", [f'task_id="{START_TASK}"', *_retries(most)], ")")

    def _task(self, step: Step) -> Iterator[Part]:
        """The arguments of a step's task."""
        options = step_options(step)
        ours = task_id(step.name)
        yield f"task_id={text_literal(ours)}"
        if ours != step.name:
            yield f"task_display_name={text_literal(step.name)}"
        yield f"step={text_literal(step.name)}"
        if inputs := list(self._inputs(step)):
            yield Pair("inputs=", Group("{", inputs, "}"))
        if docs := step_docs(step, options):
            yield Pair("doc_md=", Text(docs))
        yield from _retries(step.retry)
        if step.timeout_seconds is not None:
            yield f"execution_timeout={delta(step.timeout_seconds)}"
        arguments = (*TASK_ARGUMENTS, *STEP_ARGUMENTS)
        yield from (Pair(f"{name}=", value(options[name])) for name in arguments if name in options)
        yield from _callbacks(options, TASK_CALLBACKS, [])
        if step.resources and _asks_for_pod(step.resources):
            yield Pair("executor_config=", _pod(step.resources))

    def _inputs(self, step: Step) -> Iterator[Part]:
        for item in step.inputs:
            if isinstance(item.source, FromStep):
                output = f"{self.names.tasks[item.source.step]}.output[{text_literal(xcom_key(item.source.output))}]"
                yield Pair(f"{text_literal(item.name)}: ", output)


def _callbacks(options: Mapping[str, Any], names: Iterable[str], before: list[Part]) -> Iterator[Part]:
    """The arguments for callbacks; FlowyML's own, if any, are called first."""
    for name in names:
        calls = [*before, *(_callback(*item) for item in callbacks(options.get(name)))]
        if calls:
            yield Pair(f"{name}=", calls[0] if len(calls) == 1 else Group("[", calls, "]"))


def _callback(place: str, arguments: Mapping[str, Any] | None) -> Part:
    given = [value(dict(arguments))] if arguments is not None else []
    return Group("callback(", [text_literal(place), *given], ")")


def _only_after(step: Step) -> list[str]:
    """The steps that come before this one and give it no data."""
    given = {item.source.step for item in step.inputs if isinstance(item.source, FromStep)}
    return [name for name in dict.fromkeys(step.after) if name not in given]


def _wait(task: str, waits_for: list[str]) -> Part:
    if len(waits_for) == 1:
        return f"{waits_for[0]} >> {task}"
    return Group("[", waits_for, f"] >> {task}")


def _one_or_list(names: list[str]) -> Part:
    return names[0] if len(names) == 1 else Group("[", names, "]")


def _tags(plan: Plan, options: Mapping[str, Any], version: str) -> list[str]:
    tags = list(dict.fromkeys([*plan.tags, *options.get("tags", ()), TAG, version_tag(version)]))
    for tag in tags:
        if len(tag) > _LONGEST_TAG:
            raise DefinitionError(f"pipeline {plan.name!r}: tag {tag[:30]!r}… is longer than Airflow's {_LONGEST_TAG}.")
    return tags


def _retries(policy: OrchestratorRetryPolicy | None) -> Iterator[Part]:
    """Airflow's own backoff. It waits up to twice the computed time, so that tasks do not retry all at once."""
    if policy is None or not _tries_again(policy):
        return
    yield f"retries={policy.max_attempts - 1}"
    yield f"retry_delay={delta(policy.initial_delay_seconds)}"
    if _grows(policy):
        yield f"retry_exponential_backoff=backoff({float(policy.backoff_multiplier)!r})"
        yield f"max_retry_delay={delta(policy.max_delay_seconds)}"


def _tries_again(policy: OrchestratorRetryPolicy | None) -> bool:
    return policy is not None and policy.max_attempts > 1


def _grows(policy: OrchestratorRetryPolicy | None) -> bool:
    """Whether the delay between attempts grows."""
    if policy is None or policy.max_attempts <= 2:
        return False
    return policy.backoff_multiplier != 1 and bool(policy.initial_delay_seconds)


def _asks_for_pod(resources: ResourceRequirements | None) -> bool:
    return resources is not None and bool(resources.cpu or resources.memory or resources.gpu)


def _pod(resources: ResourceRequirements) -> Part:
    """Requests for all; limits for memory and for devices, which Kubernetes never shares."""
    wanted = {"cpu": resources.cpu, "memory": resources.memory}
    requests: list[Part] = [f"{name}={text_literal(amount)}" for name, amount in wanted.items() if amount]
    limits = {"memory": resources.memory} if resources.memory else {}
    if resources.gpu:
        limits[resources.gpu_resource] = str(resources.gpu)
    if limits:
        requests.append(Pair("limits=", value(limits)))
    if resources.gpu_labels:
        requests.append(Pair("selector=", value(resources.gpu_labels)))
    return Group("pod(", requests, ")")


def _text_or(text: str | None, otherwise: str) -> str:
    return otherwise if text is None else text_literal(text)
