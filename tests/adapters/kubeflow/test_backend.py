"""Control flow as KFP's backend runs it: the compiled pipelines of the conformance suite, by a strict interpreter.

Pods run in this process, one after another, so what needs a process of its own is for the other classes of the suite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowyml import current_run, for_each, pipeline, step
from flowyml.artifacts import open_store
from flowyml.core.capabilities import Feature
from flowyml.core.errors import RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Artifact, LogLine, Outputs, Run, StepRun
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Step
from flowyml.testing import RandomFlowConformance
from flowyml.testing.branches import BranchConformance
from flowyml.testing.cleanup import CleanupConformance, RunIfConformance
from flowyml.testing.loops import FanOutConformance
from flowyml.testing.retries import ExecutionGroupConformance
from flowyml_kubeflow import KubeflowOrchestrator, flow_names, names
from flowyml_kubeflow.attempts import RESULT, leveled
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.flow import Flow
from flowyml_kubeflow.reading import artifacts_of_notes, lines_by_item
from flowyml_kubeflow.step_runs import step_runs
from tests.engines.kubeflow_calls import without

Json = dict[str, Any]


_IN_THIS_PROCESS = "This fake of KFP runs pods in its own process, one after another."


class Interpreted(KubeflowOrchestrator):
    """Runs a pipeline to its end when it is submitted."""

    capabilities = without(PARALLEL_STEPS=_IN_THIS_PROCESS, STEP_TIMEOUT=_IN_THIS_PROCESS, CANCEL=_IN_THIS_PROCESS)
    folder: Path
    backend: Any
    ir: Any
    ran: dict[str, tuple[Run, Bundle, Any]]

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        from flowyml_kubeflow.parameters import arguments

        compiled = compile_pipeline(bundle, store="s3://code")
        for release in ((2, 14), (2, 17)):
            assert self.ir.faults(compiled.documents, kfp=release) == []
        folder = self.folder / run_id
        folder.mkdir()
        ran = self.backend.Backend(compiled, folder).run(arguments(bundle.plan, parameters), run_id)
        status = ExecutionStatus.COMPLETED if ran.succeeded else ExecutionStatus.FAILED
        failed = [note["failed"] for note in _notes(ran, flow_names.RESULT_TASK)]
        error = failed[0] if failed else None if ran.succeeded else _failure(ran)
        now = datetime.now(UTC)
        run = Run(job_id=run_id, run_id=run_id, pipeline=bundle.plan.name, status=status, raw_status=status.name,
                  created_at=now, started_at=now, ended_at=now, error=error)  # fmt: skip
        self.ran[run_id] = run, bundle, ran
        return run_id

    def get_run(self, job_id: str) -> Run:
        if job_id not in self.ran:
            raise RunNotFoundError(job_id)
        return self.ran[job_id][0]

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return [run for run, _, _ in self.ran.values() if run.pipeline == pipeline]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        run, bundle, ran = self.ran[job_id]
        return tuple(turn for each in bundle.plan for turn in step_runs(each.name, _of(each, bundle, ran), run.status))

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        _, bundle, ran = self.ran[job_id]
        return [one for each in bundle.plan for one in artifacts_of_notes(each.name, _of(each, bundle, ran))]

    def outputs(self, job_id: str) -> Outputs:
        _, _, ran = self.ran[job_id]
        published = [one for one in _results(ran, flow_names.RESULT_TASK) if "outputs" in one]
        return read_outputs(job_id, published[-1]["outputs"] if published else {}, open_store(self.folder / job_id))

    def cancel(self, job_id: str) -> bool:
        self.capabilities.require({Feature.CANCEL: f"run {job_id!r}"})
        return False

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        _, bundle, ran = self.ran[job_id]
        by_task = {names.task(each.name): each.name for each in bundle.plan}
        for unit in Flow(bundle.plan).units(bundle.plan):
            for printed in ran.logs.get(unit.task, ()):
                for task, index, line in lines_by_item(printed):
                    level, message = leveled(line)
                    yield LogLine(message, by_task[task or unit.task], level, index=index)


def _results(ran: Any, task: str) -> list[Json]:
    lines = [line for pod in ran.logs.get(task, ()) for line in pod]
    return [json.loads(line.removeprefix(RESULT)) for line in lines if line.startswith(RESULT)]


def _notes(ran: Any, task: str) -> list[Json]:
    return [one["note"] for one in _results(ran, task) if "note" in one]


def _of(each: Step, bundle: Bundle, ran: Any) -> list[Json]:
    """The notes of one step."""
    (unit,) = Flow(bundle.plan).units([each])
    task = names.task(each.name)
    return [note for note in _notes(ran, unit.task) if note.get("task", task) == task]


def _failure(ran: Any) -> str:
    ended = [(task, note) for task in ran.logs for note in _notes(ran, task) if note.get("ended") == "failed"]
    return f"step {ended[0][0]!r}: {ended[0][1]['error']}"


@pytest.mark.kubeflow
def test_a_scheduled_run_is_for_the_time_of_its_recurring_run(
    load_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    @step(outputs=["days"])
    def days() -> list[int]:
        return [1, 2]

    @step(outputs=["date"])
    def date_of(day: int) -> str:
        return f"{current_run().logical_date.isoformat()} {current_run().data_interval_start}"

    @pipeline
    def dated() -> Any:
        with for_each(days()) as day:
            dates = date_of(day)
        return dates  # noqa: RET504  # outside of the loop it is the list of all

    (tmp_path / "pods").mkdir()
    compiled = compile_pipeline(dated.bundle(), store="s3://code")
    ran = load_engine("kubeflow_backend").Backend(compiled, tmp_path / "pods").run({}, "r", "2026-03-01T02:00:00Z")
    assert ran.succeeded
    (published,) = [one for one in _results(ran, flow_names.RESULT_TASK) if "outputs" in one]
    found = read_outputs("r", published["outputs"], open_store(tmp_path / "pods"))
    assert list(found.values()) == [["2026-03-01T02:00:00+00:00 None"] * 2]


@pytest.mark.kubeflow
class TestBackend(
    FanOutConformance, BranchConformance, RunIfConformance, CleanupConformance, ExecutionGroupConformance,
    RandomFlowConformance,
):  # fmt: skip
    at_once = 1
    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(
        cls, tmp_path_factory: pytest.TempPathFactory, load_engine: Callable[[str], Any]
    ) -> Callable[..., Orchestrator]:
        folder, ran = tmp_path_factory.mktemp("backend"), dict[str, Any]()
        backend, ir = load_engine("kubeflow_backend"), load_engine("kubeflow_ir")

        def make(**options: Any) -> Orchestrator:
            made = Interpreted(**options)
            made.folder, made.backend, made.ir, made.ran = folder, backend, ir, ran
            return made

        return make
