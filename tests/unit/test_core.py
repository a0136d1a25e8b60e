"""Statuses, policies, schedules, errors, capabilities: the words that every layer shares."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml import Pipeline, step
from flowyml.core import errors
from flowyml.core.capabilities import Capabilities, Feature, Level, no, partly, yes
from flowyml.core.errors import (
    DefinitionError,
    EngineError,
    EngineUnreachableError,
    OutputNotKeptError,
    ScheduleError,
    ServerTroubleError,
    StepCancelledError,
    UnsupportedFeatureError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.observability import MetricsCollector, set_metrics_collector
from flowyml.core.progress import show_progress, show_waiting, wants_progress
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy, error_names
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.names import identifier, slug


class TestExecutionStatus:
    def test_values_are_those_of_the_guide(self) -> None:
        assert [status.value for status in ExecutionStatus] == [
            "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT",
        ]  # fmt: skip

    def test_aliases(self) -> None:
        assert ExecutionStatus.SUCCEEDED is ExecutionStatus.COMPLETED
        assert ExecutionStatus.ERROR is ExecutionStatus.FAILED
        assert ExecutionStatus["SUCCEEDED"].is_successful

    def test_stopped_runs_are_terminal_and_not_failed(self) -> None:
        for status in (ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT):
            assert status.is_terminal
            assert not status.is_failed
            assert not status.is_successful

    @pytest.mark.parametrize(("text", "advice"), [("RUNNING", "ExecutionStatus.RUNNING"), ("done", "a member of")])
    def test_a_string_is_never_equal_and_is_warned_of(self, text: str, advice: str) -> None:
        with pytest.warns(UserWarning, match=advice) as seen:
            assert (text == ExecutionStatus.RUNNING) is False
        assert seen[0].filename == __file__

    def test_it_is_a_key_and_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(ExecutionStatus.FAILED)) is ExecutionStatus.FAILED
        assert {ExecutionStatus.FAILED: 1}[ExecutionStatus.ERROR] == 1


class TestRetryPolicy:
    def test_delays_grow_up_to_the_limit(self) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=6, initial_delay_seconds=10, max_delay_seconds=60)
        assert policy.delays == (10, 20, 40, 60, 60)

    def test_one_attempt_means_no_retry(self) -> None:
        assert OrchestratorRetryPolicy(max_attempts=1).delays == ()

    def test_a_thousand_attempts_do_not_overflow(self) -> None:
        assert OrchestratorRetryPolicy(max_attempts=5000, backoff_multiplier=10).delays[-1] == 3600

    @pytest.mark.parametrize(("initial", "last"), [(1, 3600), (1e300, 3600), (0, 0)])
    def test_huge_multipliers_do_not_overflow(self, initial: float, last: float) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=5, backoff_multiplier=1e300, initial_delay_seconds=initial)
        assert policy.delays[-1] == last

    @pytest.mark.parametrize(
        ("error", "wanted", "retried"),
        [
            (TimeoutError(), "Timeout", True),
            (TimeoutError(), "TimeoutError", True),
            (TimeoutError(), "builtins.TimeoutError", True),
            (ConnectionResetError(), "Connection", True),
            (ConnectionResetError(), OSError, True),
            (MemoryError(), "OOM", True),
            (ValueError(), Exception, True),
            (ValueError(), "Exception", True),
            (KeyboardInterrupt(), Exception, False),
            (OSError(), "IOError", True),
            (OSError(), "socket.error", True),
            (ValueError("Timeout"), "Timeout", False),
            (KeyError(), "Timeout", False),
        ],
    )
    def test_errors_are_matched_by_class(self, error: BaseException, wanted: str | type, retried: bool) -> None:
        assert OrchestratorRetryPolicy(retryable_errors=[wanted]).retries_on(error) is retried

    def test_foreign_out_of_memory_errors_count_as_oom(self) -> None:
        out_of_memory = type("OutOfMemoryError", (RuntimeError,), {})
        assert OrchestratorRetryPolicy(retryable_errors=["OOM"]).retries_on(out_of_memory())

    def test_names_alone_are_enough(self) -> None:
        policy = OrchestratorRetryPolicy(retryable_errors=["Timeout"])
        assert policy.retries_on_names(error_names(TimeoutError()))
        assert not policy.retries_on_names(())

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_attempts", 0), ("max_attempts", True), ("max_attempts", 1.5), ("initial_delay_seconds", -1),
         ("initial_delay_seconds", "10"), ("backoff_multiplier", 0.5), ("retryable_errors", "OOM"),
         ("max_attempts", 3.0), ("initial_delay_seconds", float("inf")), ("max_delay_seconds", float("nan")),
         ("backoff_multiplier", float("inf"))],
    )  # fmt: skip
    def test_nonsense_is_named(self, name: str, value: object) -> None:
        with pytest.raises(DefinitionError, match=name):
            OrchestratorRetryPolicy(**{name: value})  # type: ignore[arg-type]  # a wrong value


class TestResources:
    @pytest.mark.parametrize(
        "wrong", [{"cpu": "two"}, {"cpu": True}, {"memory": "4 Gi"}, {"memory": [1]}, {"gpu": -1}, {"gpu": "1"}]
    )
    def test_notations(self, wrong: dict[str, object]) -> None:
        with pytest.raises(DefinitionError, match=next(iter(wrong))):
            ResourceRequirements(**wrong)  # type: ignore[arg-type]  # wrong on purpose

    def test_numbers_become_text(self) -> None:
        assert ResourceRequirements(cpu=0.5).cpu == "0.5"  # type: ignore[arg-type]  # text is asked for

    def test_unknown_kinds_of_the_old_dict(self) -> None:
        with (
            pytest.warns(DeprecationWarning, match=r"2\.0"),
            pytest.raises(DefinitionError, match=r"resources has no 'disk'"),
        ):
            ResourceRequirements.coerce({"disk": "1"})


class TestSchedule:
    @pytest.mark.parametrize(
        ("kind", "value", "cron"),
        [("hourly", 0, "0 * * * *"), ("daily", 3, "0 3 * * *"), ("daily", "03:30", "30 3 * * *"),
         ("cron", "0 */6 * * *", "0 */6 * * *"), ("weekly", "MON:09:00", "0 9 * * 1"),
         ("weekly", "sun:23:59", "59 23 * * 0")],
    )  # fmt: skip
    def test_types(self, kind: str, value: object, cron: str) -> None:
        assert Schedule.of(kind, value).cron == cron

    @pytest.mark.parametrize(
        ("kind", "value", "message"),
        [
            ("hourly", 60, "a minute from 0 to 59, not 60"),
            ("daily", 24, "an hour from 0 to 23"),
            ("daily", True, "an hour from 0 to 23"),
            ("weekly", "MON", "such as 'MON:09:00'"),
            ("weekly", "DAY:09:00", "such as 'MON:09:00'"),
            ("cron", "* * * *", "has 4 fields. Write five"),
            ("cron", "0 0 0 * * *", "has 6 fields. Write five"),
            ("cron", "61 * * * *", "cannot be read"),
            ("cron", "0 0 30 2 *", "never fires"),
            ("interval", 0, "seconds above 0"),
            ("interval", "1", "seconds above 0"),
            ("interval", float("inf"), "to 315360000"),
            ("interval", float("nan"), "to 315360000"),
            ("interval", 1e14, "to 315360000"),
            ("interval", 1e-9, "from 0.1"),
            ("monthly", 1, "Unknown schedule_type 'monthly'. Use hourly, daily, weekly, cron or interval"),
        ],
    )
    def test_what_no_engine_could_keep(self, kind: str, value: object, message: str) -> None:
        with pytest.raises(ScheduleError, match=message):
            Schedule.of(kind, value)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"start": "2026-01-01"}, r"start='2026-01-01' is not a datetime\. Write datetime\("),
            ({"end": date(2026, 1, 1)}, "end=datetime.date.* is not a datetime"),
            ({"timezone": None}, "Unknown time zone None. Use a name"),
            ({"timezone": 5}, "Unknown time zone 5"),
            ({"cron": 5}, "cron=5 is not text"),
        ],
    )
    def test_values_of_a_wrong_type(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ScheduleError, match=message):
            Schedule(**{"cron": "0 0 * * *", **wrong})

    def test_time_zones(self) -> None:
        with pytest.raises(ScheduleError, match="Unknown time zone 'Mars/Olympus'"):
            Schedule.of("daily", 3, timezone="Mars/Olympus")
        winter = datetime(2026, 3, 28, 12, tzinfo=UTC)
        times = Schedule.of("daily", 3, timezone="Europe/Berlin").next_times(2, after=winter)
        assert [time.astimezone(UTC).hour for time in times] == [1, 1]
        assert times[0].utcoffset() != datetime(2026, 3, 28, tzinfo=ZoneInfo("Europe/Berlin")).utcoffset()

    @pytest.mark.parametrize(
        ("cron", "times"),
        [
            ("30 2 * * *", ["25 02:30 +0200", "26 02:30 +0100", "27 02:30 +0100"]),
            ("0 1-3 * * *", ["25 01:00 +0200", "25 02:00 +0200", "25 03:00 +0100"]),
            ("15 * * * *", ["25 00:15 +0200", "25 01:15 +0200", "25 02:15 +0200", "25 02:15 +0100", "25 03:15 +0100"]),
            ("*/30 2 * * *", ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100"]),
        ],
    )
    def test_a_time_of_the_day_comes_once_when_the_clocks_go_back(self, cron: str, times: list[str]) -> None:
        after = datetime(2026, 10, 24, 22, tzinfo=UTC)
        found = Schedule(cron=cron, timezone="Europe/Berlin").next_times(len(times), after=after)
        assert [f"{time:%d %H:%M %z}" for time in found] == times
        one_by_one = Schedule(cron=cron, timezone="Europe/Berlin").next_times(1, after=found[-2])
        assert one_by_one == found[-1:]

    def test_start_and_end(self) -> None:
        start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, 1, tzinfo=UTC)
        schedule = Schedule.of("daily", 0, start=start, end=end)
        assert schedule.next_times(5) == [start, datetime(2030, 1, 2, tzinfo=UTC)]
        with pytest.raises(ScheduleError, match="before it starts"):
            Schedule.of("daily", 0, start=end, end=start)
        with pytest.raises(ScheduleError, match="too far in the future"):
            Schedule.of("daily", 0, start=datetime(9999, 12, 31, tzinfo=UTC))

    def test_one_that_would_never_fire_is_refused(self) -> None:
        past = Schedule.of("daily", 0, end=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(ScheduleError, match=r"ends \(2020-01-01 .*\) before it would fire"):
            LocalOrchestrator().schedule_pipeline(Pipeline("past").add_step(step(print)), past)
        replace(past, catch_up=True).check_future()
        Schedule.of("daily", 0).check_future()

    def test_a_script_that_holds_one_is_loaded_where_nothing_is_installed(self) -> None:
        """As in a pod, which has Python alone."""
        folder = Path(errors.__file__).parents[2]
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); from flowyml.core.schedule import Schedule; "
        made = "print(Schedule.of('daily', '03:30'), 'croniter' in sys.modules); import croniter"
        command = [sys.executable, "-I", "-S", "-c", code + made]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "cron 30 3 * * * UTC False\n", done.stderr
        assert "No module named 'croniter'" in done.stderr

    def test_intervals_are_anchored(self) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        schedule = Schedule.of("interval", 3600, start=start)
        assert schedule.next_times(2, after=datetime(2026, 1, 1, 5, 30, tzinfo=UTC)) == [
            datetime(2026, 1, 1, 6, tzinfo=UTC), datetime(2026, 1, 1, 7, tzinfo=UTC),
        ]  # fmt: skip

    def test_json_and_back(self) -> None:
        schedule = Schedule.of(
            "daily",
            3,
            timezone="Asia/Tokyo",
            start=datetime(2030, 1, 1),  # noqa: DTZ001 - gets the zone
            catch_up=True,
            parameters={"rows": 1},
        )
        assert Schedule.from_dict(schedule.to_dict()) == schedule


class TestErrors:
    def test_every_error_is_ours_and_survives_pickling(self) -> None:
        classes = [item for item in vars(errors).values() if inspect.isclass(item)]
        assert len(classes) > 20
        for cls in classes:
            assert issubclass(cls, errors.FlowymlError)
            error = cls("what, where, what now")
            error.step = "train"
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again), again.step) == (cls, "what, where, what now", "train")

    def test_the_docstring_draws_every_class(self) -> None:
        drawn = errors.__doc__ or ""
        assert [name for name, item in vars(errors).items() if inspect.isclass(item) and name not in drawn] == []

    @pytest.mark.parametrize(
        ("ours", "builtin"),
        [("MissingExtraError", ImportError), ("RunNotFoundError", LookupError), ("WaitTimeoutError", TimeoutError),
         ("EngineUnreachableError", ConnectionError), ("AuthenticationError", PermissionError)],
    )  # fmt: skip
    def test_callers_may_expect_the_builtin(self, ours: str, builtin: type) -> None:
        assert issubclass(getattr(errors, ours), builtin)


class TestCapabilities:
    table = Capabilities(
        "toy", {Feature.LOGS: yes, Feature.HOOKS: no("nothing calls them"), Feature.CANCEL: partly("slowly")}
    )

    def test_all_lacks_come_in_one_error(self) -> None:
        with pytest.raises(UnsupportedFeatureError) as seen:
            self.table.require({
                Feature.LOGS: "me", Feature.HOOKS: "pipeline 'p' has hooks", Feature.CANCEL: "me",
                Feature.RESOURCES_GPU: "step 'train' asks for gpu=1",
            })  # fmt: skip
        assert len(seen.value.lacks) == 2
        assert "pipeline 'p' has hooks: lifecycle hooks; 'toy' cannot: nothing calls them" in str(seen.value)
        assert "step 'train' asks for gpu=1" in str(seen.value)

    def test_what_is_not_said_counts_as_no(self) -> None:
        assert self.table[Feature.PARALLEL_STEPS].level is Level.NO


class _Fading:
    """An engine that tells the end of a run and answers no more after it."""

    name = "fading"
    ended = False

    def get_run(self, job_id: str) -> Run:
        status = ExecutionStatus.COMPLETED if self.ended else ExecutionStatus.RUNNING
        self.ended = True
        return Run(job_id=job_id, run_id="r", pipeline="p", status=status, raw_status="")

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        raise EngineUnreachableError("gone")

    def outputs(self, job_id: str) -> Outputs:
        return Outputs()

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        return iter(())

    def cancel(self, job_id: str) -> bool:
        return False


class _Collector(MetricsCollector):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def step_finished(self, *arguments: object) -> None:
        self.seen.append("step")

    def run_finished(self, *arguments: object) -> None:
        self.seen.append("run")


class TestWaiting:
    def test_an_engine_that_goes_after_the_end_takes_nothing_away(self) -> None:
        handle = SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01)
        assert handle.status is ExecutionStatus.COMPLETED

    @pytest.mark.parametrize("trouble", [EngineUnreachableError, ServerTroubleError])
    def test_silence_and_a_server_in_trouble_end_no_wait(self, trouble: type[EngineError]) -> None:
        class Troubled(_Fading):
            looks = 0

            def get_run(self, job_id: str) -> Run:
                self.looks += 1
                if self.looks == 2:
                    raise trouble("the database is locked")
                return super().get_run(job_id)

        engine = Troubled()
        assert SubmissionResult(engine, "job").wait_for_completion(5, 0.01).status is ExecutionStatus.COMPLETED
        assert engine.looks > 2

    def test_with_a_collector_the_run_is_measured_all_the_same(self, caplog: pytest.LogCaptureFixture) -> None:
        collector = _Collector()
        set_metrics_collector(collector)
        try:
            SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01)
        finally:
            set_metrics_collector(None)
        assert collector.seen == ["run"]
        assert "The steps of run 'r' were not measured: gone" in caplog.text

    @pytest.mark.parametrize("progress", [None, True])
    def test_without_standard_error_nothing_is_shown(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], progress: bool | None
    ) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        assert SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01, progress=progress).status.is_terminal
        with show_progress("p", "r") as update:
            update(_Fading().get_run("job"), ())
        assert capsys.readouterr().out == ""

    def test_progress_can_be_turned_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert wants_progress()
        monkeypatch.setenv("FLOWYML_PROGRESS", "0")
        assert not wants_progress()


class TestHooks:
    def test_an_async_method_is_refused(self) -> None:
        class Waits(PipelineHook):
            async def on_step_end(self, step_name: str, outputs: object, duration: float) -> None: ...  # type: ignore[override]  # a coroutine, which hooks cannot be

        with pytest.raises(DefinitionError, match=r"Pipeline 'p': hook Waits.on_step_end is async, .* asyncio.run"):
            Pipeline("p", hooks=[Waits()])

    def test_a_method_that_nothing_calls_is_refused(self) -> None:
        class Mistyped(PipelineHook):
            def on_pipline_end(self, *_: object) -> None: ...

        with pytest.raises(DefinitionError, match=r"'on_pipline_end', .* Did you mean 'on_pipeline_end'\?"):
            Pipeline("p", hooks=[Mistyped()])

    def test_a_method_that_cannot_be_called_is_refused(self) -> None:
        class Short(PipelineHook):
            def on_error(self, step_name: str) -> None: ...  # type: ignore[override]  # wrong on purpose

        class Free(PipelineHook):
            def on_error(self, *arguments: object) -> None: ...

        with pytest.raises(DefinitionError, match=r"on_error takes .*, and is called with \(step_name, error\)"):
            Pipeline("p", hooks=[Short()])
        assert Pipeline("p", hooks=[Free()]).hooks

    def test_what_a_hook_raises_is_logged_and_goes_no_further(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[str] = []

        class Bad(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                raise RuntimeError("broken hook")

        class Good(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                seen.append(step_name)

        fire([Bad(), Good()], "on_step_start", "train", {})
        assert seen == ["train"]
        assert "Hook Bad.on_step_start failed; the run goes on." in caplog.text
        assert "broken hook" in caplog.text

    def test_sys_exit_in_a_hook_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        class Leaves(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                raise SystemExit(3)

        fire([Leaves()], "on_step_start", "train", {})
        assert "Hook Leaves.on_step_start failed; the run goes on." in caplog.text

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, StepCancelledError])
    def test_what_stops_the_run_passes_through_a_hook(self, kind: type[BaseException]) -> None:
        class Hit(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                raise kind

        with pytest.raises(kind):
            fire([Hit()], "on_step_start", "train", {})


class TestOutputs:
    def test_one_that_was_not_kept_says_so(self) -> None:
        outputs = Outputs({"score": 1}, not_kept={"model": "'model' was not kept; keep it with keep_outputs=True"})
        assert outputs["score"] == 1
        with pytest.raises(OutputNotKeptError, match="keep_outputs"):
            outputs["model"]
        with pytest.raises(KeyError, match="this run has: score, model"):
            outputs["other"]


class TestNames:
    @given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
    def test_two_names_never_become_one(self, one: str, two: str) -> None:
        if one != two:
            assert slug(one) != slug(two)
            assert identifier(one) != identifier(two)

    @given(st.text(min_size=1, max_size=300))
    def test_slugs_and_identifiers_are_what_they_say(self, name: str) -> None:
        assert len(slug(name)) <= 60
        assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert identifier(name).isidentifier()
        assert identifier(name).isascii()

    @pytest.mark.parametrize("name", ["a-b0ce1989", "x", "1", "_", "-", "None", "load_b0ce1989"])
    def test_odd_ones(self, name: str) -> None:
        assert slug(name) == slug(name)
        assert identifier(name).isidentifier()
        assert identifier(name) not in ("None", "_")


def test_what_is_waited_for_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FLOWYML_PROGRESS", "0")
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
    assert caplog.messages == [], "only what takes a while is worth a line"
    monkeypatch.setattr("flowyml.core.progress._A_WHILE", -1)
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
        show()
    assert caplog.messages == ["waiting for [bold]Airflow"]


def test_what_is_waited_for_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]  # as a test may
    monkeypatch.delenv("FLOWYML_PROGRESS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
    assert "waiting for [bold]Airflow" in stream.getvalue()
