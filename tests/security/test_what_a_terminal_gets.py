"""Escape sequences from engines, steps and bundles are shown on the terminal, never sent to it, by any command."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.artifacts import open_store
from flowyml.cli import main
from flowyml.cli.app import COMMANDS as ALL_COMMANDS
from flowyml.core.capabilities import Capabilities, Feature, Level, Support
from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.plain_text import safe_line, safe_log, safe_text
from flowyml.core.progress_output import SafeOutput
from flowyml.core.pruning import Bounds, Prunable
from flowyml.core.runs import Artifact, LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.core.submission_result import SubmissionResult
from flowyml.migration.airflow.cutover import Record, save
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Health, Orchestrator, SignIn
from flowyml.orchestrators.deployer import Deployment
from flowyml.orchestrators.handover import OldSchedule
from flowyml.orchestrators.workflows import Workflow
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.canonical import canonical_json
from flowyml.plan.model import Plan, Step
from flowyml.plan.names import slug
from flowyml.runtime import caching

EVIL = "evil\x1b]0;owned\x07\x1b[2J\x1b[8m\x9b3A\x08\r\u202eevil"
SHOWN = r"evil\x1b]0;owned\x07\x1b[2J\x1b[8m\x9b3A\x08"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
# What FlowyML itself sends: colours, and the cursor of rich's live view.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|1A|2K)|\r(?=\x1b\[(?:2K|1A)|\n)")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Hostile(Orchestrator):
    """An engine whose every word is an attack."""

    name = EVIL
    capabilities = Capabilities(EVIL, {feature: Support(Level.PARTLY, EVIL) for feature in Feature})
    failing = False
    reader: Any = None

    def _run(self) -> Run:
        status = ExecutionStatus.FAILED if self.failing else ExecutionStatus.COMPLETED
        return Run(
            job_id=EVIL, run_id=EVIL + "2", pipeline=EVIL, status=status, raw_status=EVIL, started_at=NOW, ended_at=NOW,
            error=f"{EVIL}\n{EVIL}" if self.failing else None, url=f"http://x/{EVIL}", parameters={EVIL: EVIL},
            not_kept={EVIL: f"{EVIL}\n{EVIL}"},
        )  # fmt: skip

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any]) -> str:
        logging.getLogger("flowyml.hostile").warning("logged %s", EVIL)
        warnings.warn(EVIL, UserWarning, stacklevel=2)
        return EVIL

    def get_run(self, job_id: str) -> Run:
        if job_id == "broken":
            raise EngineError(EVIL)
        return self._run()

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return [self._run()]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        status = self._run().status
        return (StepRun(name=EVIL, status=status, raw_status=EVIL, attempt=2, started_at=NOW, error=EVIL),)

    def outputs(self, job_id: str) -> Outputs:
        return Outputs({EVIL: EVIL, "text": EVIL, "odd": Odd()}, not_kept={EVIL + "3": EVIL})

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        yield LogLine(message=f"{EVIL}\n{EVIL}", step=EVIL, level=EVIL, time=NOW)

    def cancel(self, job_id: str) -> bool:
        return True

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        warnings.warn(EVIL, UserWarning, stacklevel=2)

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(references, f"{EVIL}\n{EVIL}")

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        return [Artifact(step=EVIL, name=EVIL, type=EVIL, format=EVIL, url=EVIL, metadata={EVIL: EVIL}, head=EVIL)]

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        for kept in ("", EVIL):
            yield Prunable(kind=EVIL, name=EVIL, bytes=1, used=0, kept=kept, remove=never_removed)

    def workflows(self, *, last: int = 25) -> list[Workflow]:
        return [Workflow(name=EVIL, schedule=EVIL, timezone=EVIL, owners=(EVIL,), tags=(EVIL,), file=EVIL, url=EVIL)]

    def foreign_schedule(self, name: str) -> HostileSchedule:
        return HostileSchedule()

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> dict[datetime, Run]:
        return {NOW: Hostile()._run()}

    def health(self) -> Health:
        return Health(reachable=True, version=EVIL, url=EVIL, detail=EVIL)

    def deploy(self, bundle: Bundle) -> Deployment:
        return Deployment(name=EVIL, digest=EVIL, changed=True, url=EVIL, also=(EVIL,))

    def diff(self, bundle: Bundle) -> str:
        return f"+{EVIL}\n"

    def _info(self) -> ScheduleInfo:
        return ScheduleInfo(
            schedule_id=EVIL, pipeline=EVIL, schedule=Schedule.of("daily", 3), next_runs=(NOW,), drift=(EVIL,)
        )

    def create_schedule(self, bundle: Bundle, schedule: Schedule) -> ScheduleInfo:
        return self._info()

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        return [self._info()]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._info()

    resume_schedule = pause_schedule

    def delete_schedule(self, schedule_id: str) -> None:
        raise EngineError(EVIL)

    def trigger(
        self, name: str, run_id: str | None = None, *, parameters: Mapping[str, Any] | None = None
    ) -> SubmissionResult:
        return self.attach(name)

    def clear(self, job_id: str, *, failed_only: bool = True) -> None:
        warnings.warn(EVIL, UserWarning, stacklevel=2)

    def backfill(
        self, name: str, start: date, end: date, *, parameters: Mapping[str, Any] | None = None, **options: Any
    ) -> list[SubmissionResult]:
        return [self.attach(name)]

    @property
    def deployer(self) -> Any:
        return HostileDeployer()

    @classmethod
    def sign_in(cls) -> SignIn:
        return SignIn(url=EVIL, password=EVIL)

    @classmethod
    def stop_server(cls) -> bool:
        raise EngineError(EVIL)


class HostileDeployer:
    """Removes what bears an evil name."""

    def undeploy(self, pipeline: str, **options: Any) -> list[str]:
        return [EVIL]


class HostileSchedule:
    """One of a DAG, whose runs went otherwise than those of the pipeline beside it."""

    name = place = EVIL

    def look(self) -> OldSchedule:
        raise EngineError(EVIL)

    def runs(self, most: int) -> dict[datetime, Run]:
        return {NOW: Failing()._run()}


def never_removed() -> int:
    raise OSError(EVIL)


class Failing(Hostile):
    failing = True


class Odd:
    def __repr__(self) -> str:
        return EVIL


HOSTILE_PLAN = Plan(name=EVIL, steps=(Step(name=EVIL, function="m:f", outputs=(EVIL,)),))


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(registry, "_registered", {"hostile": Hostile, "failing": Failing})
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mild.py").write_text(
        "from flowyml import Pipeline, step\n@step\ndef one() -> int:\n    return 1\n"
        "p = Pipeline('mild').add_step(one)\n"
    )
    (tmp_path / "secretive.py").write_text(
        "from flowyml import Pipeline, step\n@step(secrets={'key': 'shop/key'})\ndef one(key: str) -> int:\n"
        "    return 1\np = Pipeline('secretive').add_step(one)\n"
    )
    (tmp_path / "hostile_dag.py").write_text(
        "from airflow import DAG\nfrom x import {}\n".replace("{}", "Make")
        + f"with DAG('plain', schedule=Make({EVIL!r}), tags=[{EVIL!r}]):\n    for one in Make():\n"
        + f"        Make(task_id={EVIL!r} + one)\nwith DAG('more', schedule={EVIL!r}): ...\n"
    )
    (tmp_path / "rude.py").write_text(f"raise ValueError({EVIL!r})\n")
    build(HOSTILE_PLAN, files={"m.py": b"def f(): ..."}).write(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    (old / f"{EVIL}.py").write_text(
        f"from flowyml.core.pipeline import Pipeline\nPipeline('p', stack={EVIL!r})  # {EVIL}\n"
    )
    (old / "dag.py").write_text(f"from airflow import DAG\nwith DAG({EVIL!r}, schedule={EVIL!r}):\n    pass\n")
    forge_cached_result(tmp_path / "store")
    beside = {"dag": "beside", "old": EVIL, "new": "hostile", "shadow": NOW.isoformat()}
    save(Record(**beside, file="mild.py", pipeline=EVIL, phase="shadow"))
    yield
    for name in ("mild", "rude", "secretive"):
        sys.modules.pop(name, None)


CACHED = hashlib.sha256(canonical_json({}, code=EVIL)).hexdigest()


def forge_cached_result(store: Path) -> None:
    folder = store / caching.ROOT / slug(EVIL) / slug(EVIL) / CACHED
    folder.mkdir(parents=True)
    record = {
        "version": caching._VERSION, "pipeline": EVIL, "step": EVIL, "run_id": EVIL, "created": 0, "seconds": 0,
        "depends": {"code": EVIL}, "outputs": {},
    }  # fmt: skip
    (folder / caching._RECORD).write_text(json.dumps(record))
    assert [entry.pipeline for _, entry in caching.entries_in(open_store(str(store))) if entry] == [EVIL]


COMMANDS = [
    "runs --on hostile", "runs --parameters --metrics --on hostile",
    "compare x x --on hostile --artifacts store",
    "status x --on hostile", "status x --on failing", "status broken --on hostile",
    "watch x --on hostile", "watch x --on failing", "logs x --on hostile", "outputs x --on hostile",
    "outputs x text --on hostile", "outputs x odd --on hostile", f"outputs x {EVIL} --on hostile",
    "outputs x --on failing", "cancel x --on hostile",
    "retry x --on failing", "run mild.py --on hostile", "run mild.py --on failing",
    "run mild.py -d --on hostile", "run rude.py", "deploy mild.py --on hostile",
    "deploy mild.py --dry-run --on hostile",
    "schedule create mild.py daily 3 --on hostile", "schedule list --on hostile", "schedule pause x --on hostile",
    "schedule resume x --on hostile", "schedule delete x --on hostile", "backends", "backends show hostile",
    f"runs --on {EVIL}", f"status {EVIL}", f"run {EVIL}.py", f"run mild.py -p {EVIL}=1", f"{EVIL}", f"runs --{EVIL}",
    "graph BUNDLE", "graph BUNDLE -f mermaid", "graph BUNDLE -f svg", "compile BUNDLE --to plan",
    "compile BUNDLE --to prefect", "bundle BUNDLE", f"bundle mild.py -o {EVIL}",
    f"undeploy {EVIL} --on hostile", f"undeploy {EVIL} --on airflow -o {EVIL}",
    "trigger x --on hostile", "clear x --on hostile", "backfill x 2026-01-01 2026-01-02 --on hostile",
    "backends sign-in hostile", "backends stop hostile", "schedule serve --on hostile",
    "artifacts x --on hostile", "prune --on hostile --older-than 1d", "prune --on hostile --dry-run",
    "migrate old", "migrate old --check", "migrate old --write", "import airflow old --json",
    "airflow adopt --on hostile", "airflow adopt --on hostile --dags old", "airflow adopt --on hostile -f markdown",
    f"airflow cutover {EVIL} --on hostile --to hostile --pipeline mild.py", "airflow cutover x --on hostile --back",
    "airflow cutover y --shadow --on hostile --to hostile --pipeline mild.py", "airflow compare beside --on failing",
    "airflow compare beside --on failing --json", f"airflow compare {EVIL} --on hostile",
    "cache list --artifacts store", f"cache show {CACHED} --artifacts store", f"cache show {EVIL} --artifacts store",
    f"cache explain {EVIL} --on hostile --artifacts store", f"cache explain {EVIL}x --on hostile --artifacts store",
    "cache clear --artifacts store --all", f"cache clear --artifacts store --pipeline {EVIL}",
    "secrets check secretive.py --on hostile", "secrets check BUNDLE --on hostile",
    f"import airflow {EVIL}", "import airflow hostile_dag.py",
]  # fmt: skip


def test_every_command_is_attacked() -> None:
    attacked = {" ".join(line.split(" ")[:words]) for line in COMMANDS for words in (1, 2)}
    assert set(ALL_COMMANDS) <= attacked


@pytest.mark.parametrize("kind", [Terminal, StringIO])
@pytest.mark.parametrize("line", COMMANDS, ids=ascii)
def test_nothing_hostile_reaches_the_terminal(
    line: str, kind: type[StringIO], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = line
    if "BUNDLE" in line:
        (bundle,) = tmp_path.glob("*.pyz")
        given = line.replace("BUNDLE", bundle.name)
    with redirect_stdout(kind()) as out, redirect_stderr(kind()) as err:
        main(given.split(" "))
    past = capfd.readouterr()
    seen = out.getvalue() + err.getvalue() + past.out + past.err
    assert seen
    if kind is StringIO and line.startswith(
        ("outputs x text", "outputs x odd", "outputs x evil", "compile BUNDLE --to plan")
    ):
        assert "\x9b" in seen  # data for a program, as it is
        return
    assert not CONTROL.search(OURS.sub("", seen)), ascii(seen)


def test_a_name_forges_no_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    forged = "train COMPLETED\nerror: paid 1,000"
    monkeypatch.setattr(sys.modules[__name__], "EVIL", forged)
    for line in ("status x", "watch x", "outputs x", "schedule pause x", "runs", "schedule list"):
        main([*line.split(" "), "--on", "hostile"])
    assert not re.search("^error: paid", capsys.readouterr().out, re.MULTILINE)


def on_a_terminal(*command: str) -> str:
    """What a real terminal gets of a command."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        process.wait(2400)
    return seen.decode()


def test_what_a_submitted_step_prints_raises_and_returns_is_shown_on_a_real_terminal(tmp_path: Path) -> None:
    (tmp_path / "hostile.py").write_text(
        f"from flowyml import Pipeline, step\nEVIL = {EVIL!r}\n"
        "@step(outputs=['text'])\ndef says(fails: bool):\n    print(EVIL)\n    if fails:\n"
        "        raise ValueError(EVIL)\n    return EVIL\n"
        "p = Pipeline('hostile', context={'fails': False}, description=EVIL).add_step(says)\n"
    )
    wanted = {
        "good": (False, ["logs good", "logs good --follow", "outputs good text"]),
        "bad": (True, ["logs bad", "watch bad"]),
    }
    for run_id, (fails, lines) in wanted.items():
        start = ["run", "hostile.py", "--run-id", run_id, "-p", f"fails={str(fails).lower()}", "--timeout", "240"]
        for words in (start, *(line.split() for line in lines)):
            seen = on_a_terminal("-m", "flowyml", *words)
            assert run_id in seen or words[0] in ("logs", "outputs"), seen
            assert not CONTROL.search(OURS.sub("", seen)), (words, ascii(seen))
            if words[0] in ("logs", "watch") and fails:
                assert r"\x1b]0;owned" in seen


CLIPBOARD = "\x1b]52;c;b3duZWQ=\x07"  # OSC 52 fills the clipboard
LOUD = EVIL.replace("\r", "") + CLIPBOARD
SPEAKS = f"""
import atexit, logging, os, sys, time
from flowyml import Pipeline, get_logger, step
from flowyml.core.hooks import PipelineHook

EVIL = {LOUD!r}
print("imported", EVIL)
atexit.register(print, "at exit", EVIL)
if "OWN_HANDLER" in os.environ:
    logging.basicConfig(level=logging.INFO, format="own: %(message)s")

class Speaks(PipelineHook):
    def on_pipeline_start(self, *_): print("hook", EVIL)
    def on_pipeline_end(self, *_): print("hook", EVIL, file=sys.stderr)
    def on_error(self, *_): print("hook", EVIL, file=sys.stderr)

@step
def says() -> int:
    print("printed", EVIL)
    print("on stderr", EVIL, file=sys.stderr)
    sys.stdout.writelines(["lines ", EVIL, "\\n"])
    sys.stdout.buffer.write(f"bytes {{EVIL}}\\n".encode())
    sys.stdout.buffer.flush()
    for piece in EVIL:  # a sequence that comes in pieces is one on the terminal
        print(piece, end="", flush=True)
    print()
    get_logger().warning("logged %s", EVIL)
    while "DRAWN" in os.environ and "rich.live" not in sys.modules:
        time.sleep(0.01)
    print("then", EVIL)
    return 1

@step(timeout=600)
def says_apart(says: int) -> int:
    print("apart", EVIL)
    os.write(1, b"past Python " + EVIL.encode() + b"\\n")
    return 2

@step
def fails(says_apart: int) -> None:
    raise ValueError(EVIL)

p = Pipeline("speaks", hooks=[Speaks()]).add_step(says).add_step(says_apart).add_step(fails)
if __name__ == "__main__":
    p.run()
"""


@pytest.mark.parametrize(
    "variables",
    [
        "", "FLOWYML_PROGRESS=0", "DRAWN=1", "FLOWYML_FORK=0 OWN_HANDLER=1", "NO_COLOR=1",
        "FLOWYML_ORCHESTRATORS__LOCAL__WORKERS=processes",
    ],
)  # fmt: skip
def test_what_a_run_in_the_foreground_prints_is_shown_on_a_real_terminal(
    variables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps in the command's process and in their own, by hooks, loggers, tracebacks and modules."""
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    (tmp_path / "speaks.py").write_text(SPEAKS)
    seen = on_a_terminal("-m", "flowyml", "run", "speaks.py")
    assert not CONTROL.search(OURS.sub("", seen)), ascii(seen)
    whole = seen.replace("\r\n", "")  # as a terminal of 100 columns breaks lines
    for words in ("imported", "printed", "on stderr", "lines", "bytes", "logged", "then", "apart", "past Python",
                  "at exit", "hook", "ValueError"):  # fmt: skip
        assert words in whole, seen
    assert whole.count(r"\x1b]52;c;b3duZWQ=\x07") >= 12, seen


def test_what_a_run_prints_goes_to_a_pipe_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "speaks.py").write_text(SPEAKS)
    command = [sys.executable, "-m", "flowyml", "run", "speaks.py"]
    done = subprocess.run(command, capture_output=True, timeout=2400, check=False)
    assert f"printed {LOUD}\n".encode() in done.stdout
    assert f"on stderr {LOUD}\n".encode() in done.stderr


def test_a_program_of_one_s_own_has_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_PROGRESS", "0")
    (tmp_path / "speaks.py").write_text(SPEAKS)
    assert f"printed {LOUD}" in on_a_terminal("speaks.py")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["a", "b", "\n"], "ab\n"),
        (["\r10%", "\r20%", "\n"], "10%\r\x1b[2K20%\n"),
        (["10%\r", "20%\r", "done\n"], "10%\r\x1b[2K20%\r\x1b[2Kdone\n"),
        (["one\r", "\n", "two"], "one\ntwo"),
        (["one\r\ntwo\r\n"], "one\ntwo\n"),
        (["bar\n", "\x1b[1A\x1b[2Kbar 2\n"], "bar\nbar 2\n"),
        (["x", "y\rz"], "x\r\x1b[2Kz"),
        (["\x1b[32mok\x1b[0m\n"], "\x1b[32mok\x1b[0m\x1b[0m\n"),
        (["\x1b", "]52;c;x\x07"], r"\x1b]52;c;x\x07"),
    ],
    ids=ascii,
)
def test_a_line_that_is_written_again_takes_its_own_place(pieces: list[str], shown: str) -> None:
    terminal = Terminal()
    stream = SafeOutput(terminal)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    assert terminal.getvalue() == shown


@given(st.lists(st.text(st.characters(codec=None)) | st.text(st.sampled_from("\x1b[0;12345678mAJK]\r\n\t\x9bab"))))
@settings(max_examples=300)
def test_whatever_the_pieces_no_control_reaches_the_terminal(pieces: list[str]) -> None:
    terminal = Terminal()
    stream = SafeOutput(terminal)
    for piece in pieces:
        stream.write(piece)
    assert not CONTROL.search(OURS.sub("", terminal.getvalue()))


def test_a_bundle_that_is_run_by_hand_shows_what_is_written_in_it(tmp_path: Path) -> None:
    described = Plan(name="mild", description=EVIL, steps=HOSTILE_PLAN.steps)
    bundle = build(described, files={"m.py": b"def f(): ..."}).write(tmp_path)
    for words in (["--help"], ["plan"], ["step", EVIL + "x"]):
        seen = on_a_terminal("-I", str(bundle), *words)
        assert seen
        assert not CONTROL.search(OURS.sub("", seen)), (words, ascii(seen))


def test_what_the_server_of_schedules_logs_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowyml.orchestrators.local import schedule_server

    def serve(path: Path) -> None:
        logging.getLogger("flowyml.schedules").info("Run %s has begun.", EVIL)
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("flowyml.schedules").exception("The run of %s could not be started.", EVIL)

    monkeypatch.setattr(schedule_server, "serve_schedules", serve)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with redirect_stdout(Terminal()) as out, redirect_stderr(Terminal()) as err:
        main(["schedule", "serve"])
    assert SHOWN in err.getvalue()
    assert "Traceback" in err.getvalue()
    assert not CONTROL.search(OURS.sub("", out.getvalue() + err.getvalue()))


def test_a_debugger_s_traceback_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_DEBUG", "1")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as err:
        main(["schedule", "delete", "x", "--on", "hostile"])
    assert "Traceback" in err.getvalue()
    assert SHOWN in err.getvalue()
    assert not CONTROL.search(err.getvalue())


@pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb"])
def test_no_color_means_none(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable.split("="))
    plain = [line for line in COMMANDS if EVIL not in line and "BUNDLE" not in line]
    with redirect_stdout(Terminal()) as out, redirect_stderr(Terminal()) as err:
        for line in plain:
            main(line.split(" "))
    assert not re.search(r"\x1b\[[0-9;]*m", out.getvalue() + err.getvalue())


@given(st.text(st.characters(codec=None)) | st.text(st.sampled_from("\x1b[0;12345678m]\r\n\t\x9bab")))
@settings(max_examples=500)
def test_whatever_the_text_no_control_is_left(text: str) -> None:
    assert not CONTROL.search(safe_text(text))
    assert not re.search("[\n\t]", safe_line(text))
    plain = safe_log(text)
    assert not CONTROL.search(plain)
    coloured = safe_log(text, colours=True)
    left = re.findall(r"\x1b\[([0-9;]*)m", coloured)
    assert not CONTROL.search(re.sub(r"\x1b\[[0-9;]*m", "", coloured))
    assert not left or coloured.endswith("\x1b[0m")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[01;31mred\x1b[m", "\x1b[01;31mred\x1b[m\x1b[0m"),
        ("\x1b[38;5;208mo", "\x1b[38;5;208mo\x1b[0m"),
        ("\x1b[48;2;1;2;3mo", "\x1b[48;2;1;2;3mo\x1b[0m"),
        ("\x1b[8mhidden", r"\x1b[8mhidden"),
        ("\x1b[5mblink", r"\x1b[5mblink"),
        ("\x1b[38;5;999mx", r"\x1b[38;5;999mx"),
        ("\x1b[38;5mx", r"\x1b[38;5mx"),
        ("\x1b[38mx", r"\x1b[38mx"),
        ("\x1b[?25lx", r"\x1b[?25lx"),
        ("10%\r50%\r100%\r\n", "100%"),
    ],
    ids=ascii,
)
def test_colours_of_steps_stay_and_end_with_their_line(given: str, shown: str) -> None:
    assert safe_log(given, colours=True) == shown
