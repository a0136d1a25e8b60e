"""One attempt of a step in a process of its own, and the journal of attempts that the local runner reads."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import IO, Any, Self

from flowyml.artifacts import run_place
from flowyml.core.dates import RunDates
from flowyml.core.logs import parts
from flowyml.core.process_identity import ProcessIdentity, identity_of, signal_group, signal_process
from flowyml.plan.model import Step
from flowyml.runtime.shutdown import GRACE

__all__ = ["LOCAL", "RESULT", "Attempt", "Journal", "fire_hook", "leveled", "printed"]

LOCAL = "FLOWYML_KUBEFLOW_LOCAL"  # the folder of a run of the local runner; absent on a cluster
ARTIFACTS = "FLOWYML_ARTIFACTS"
RESULT = "flowyml-result "  # begins a line of a pod's log with what KFP's API has no field for; only `tell` writes it
_LEVELS = ("DEBUG", "WARNING", "ERROR", "CRITICAL")
_SAFE_PATH = "PYTHONSAFEPATH"  # set for KFP's local runner, and not meant for what a step starts
_CHUNK = 1 << 16  # bytes read at once: after each, the clock is looked at
_PIPE = 1 << 20  # bytes that a pipe holds at most; source: pipe(7)
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG; source: prctl(2)


@dataclass(frozen=True)
class Journal:
    """What the local runner can see of a step: its attempts and its log, one JSON document a line."""

    folder: Path | None

    @classmethod
    def of(cls, task: str) -> Journal:
        """The journal of a task; on a cluster one that writes nothing, since KFP itself keeps all that."""
        run = os.environ.get(LOCAL)
        if not run:
            return cls(None)
        folder = Path(run) / "steps" / task
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def next_attempt(self) -> int:
        """KFP tells no task which of its attempts this is; the local runner's journal does."""
        if self.folder is None:
            return 1
        return sum(1 for line in _lines(self.folder / "attempts.jsonl") if "started" in line) + 1

    def write(self, name: str, *documents: Mapping[str, Any]) -> None:
        """Add documents to a file of the journal."""
        if self.folder:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"time": time.time(), **facts}) + "\n" for facts in documents)

    def tell(self, **result: Any) -> None:
        """Leave the outputs of the pipeline, or a failure, in the log: KFP's API gives neither."""
        line = RESULT + json.dumps(result, separators=(",", ":"))
        if self.folder:
            self.write("log.jsonl", {"stream": "result", "line": line, "attempt": self.next_attempt() - 1})
        else:
            print(line, flush=True)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


class Attempt:
    """Runs the bundle's ``step`` command. Afterwards there are ``outputs``, or a ``failure``."""

    def __init__(
        self, bundle: Path, pipeline: str, step: Step, scratch: Path, journal: Journal, dates: RunDates
    ) -> None:
        self.bundle = bundle
        self.pipeline = pipeline
        self.step = step
        self.scratch = scratch
        self.journal = journal
        self.dates = dates
        self.number = journal.next_attempt()
        self.outputs: dict[str, Any] = {}
        self.failure: dict[str, Any] | None = None

    def run(self, inputs: Mapping[str, Any], brought: Sequence[Path]) -> None:
        """One try, with its outputs in ``scratch`` or in the store that ``FLOWYML_ARTIFACTS`` names.

        Inputs stand there too, or in one of the folders ``brought``.
        """
        answer = self.scratch / "answer.json"
        (self.scratch / "inputs.json").write_text(json.dumps(inputs))
        started = time.time()
        with subprocess.Popen(
            self._command(answer, brought), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_environment(), start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # there is one thread
        ) as process:  # fmt: skip
            leader = identity_of(process.pid)
            about = {"group": leader.pid, "born": leader.born}
            self.journal.write("attempts.jsonl", {"attempt": self.number, "started": started, **about})
            timed_out = not self._watch(process, leader)
            exit_code = process.wait()
        self._read(answer, exit_code, timed_out)
        self.journal.write("attempts.jsonl", {"attempt": self.number, "ended": time.time(), "failure": self.failure})
        if self.failure:
            self.journal.tell(failure={"kind": self.failure["kind"], "message": self.failure["message"]})

    def _command(self, answer: Path, brought: Sequence[Path]) -> list[str]:
        store = os.environ.get(ARTIFACTS) or str(self.scratch / "store")
        run_id = os.environ.get("FLOWYML_RUN_ID") or f"kfp-{os.urandom(8).hex()}"
        place = run_place(f"kubeflow-{os.urandom(8).hex()}", self.pipeline, run_id)  # a pod does not learn its KFP's id
        return [
            sys.executable, str(self.bundle), "step", "--inputs", f"@{self.scratch / 'inputs.json'}",
            "--answer", str(answer), "--artifacts", store, "--attempt", str(self.number),
            # What KFP took from its cache stands where an earlier run has put it.
            f"--place={place}", *(f"--also={folder}" for folder in dict.fromkeys((store, *brought))),
            "--run-id", run_id, f"--dates={json.dumps(self.dates.plain())}", "--", self.step.name,
        ]  # fmt: skip

    def _watch(self, process: subprocess.Popen[bytes], leader: ProcessIdentity) -> bool:
        """Pass on what it prints until it ends; False when it took too long, and was killed."""
        deadline = time.monotonic() + self.step.timeout_seconds if self.step.timeout_seconds else None
        assert process.stdout is not None
        assert process.stderr is not None
        in_time = True
        with _Streams({process.stdout: self._printed("stdout"), process.stderr: self._printed("stderr")}) as streams:
            while in_time and process.poll() is None:
                streams.pump(0.05)
                in_time = not deadline or time.monotonic() < deadline
            if not in_time and signal_process(leader, signal.SIGTERM):
                late = time.monotonic() + GRACE
                while process.poll() is None and time.monotonic() < late:
                    streams.pump(0.05)
            _end(process, leader)  # and whatever it has left behind, which may print for ever
            for _ in range(_PIPE // _CHUNK):
                streams.pump(0)
        return in_time

    def _printed(self, stream: str) -> Callable[[Sequence[str]], None]:
        target = sys.stdout if stream == "stdout" else sys.stderr

        def give(lines: Sequence[str]) -> None:
            logged = [part for line in lines for part in parts(line)]
            print(*printed(list(starmap(_with_level, logged))), sep="\n", file=target, flush=True)
            documents = (
                {"stream": stream, "line": line, "level": level or "INFO", "attempt": self.number}
                for level, line in logged
            )
            self.journal.write("log.jsonl", *documents)

        return give

    def _read(self, answer: Path, exit_code: int, timed_out: bool) -> None:
        if timed_out:
            limit = f"{self.step.timeout_seconds:g} s"
            self._lost(
                "StepTimeoutError", f"step {self.step.name!r} ran longer than its timeout of {limit} and was stopped."
            )
        elif not answer.exists():
            how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
            self._lost(
                "StepCrashedError", f"The process of step {self.step.name!r} {how} before the step had returned."
            )
        else:
            told = json.loads(answer.read_text())
            self.outputs, self.failure = told.get("outputs", {}), told.get("failure")

    def _lost(self, error: str, message: str) -> None:
        """The step's process cannot call its hooks any more, so they are called here."""
        self.failure = {"kind": error, "message": message, "names": [error, "StepError"], "traceback": ""}
        print(message, file=sys.stderr, flush=True)
        fire_hook(self.bundle, "on_error", self.step.name, {"type": error, "message": message, "step": self.step.name})


def fire_hook(bundle: Path, event: str, *arguments: object) -> None:
    """Call the pipeline's hooks; what they raise never changes the outcome of a run.

    Their arguments are in a file, since Linux takes 128 KiB in one argument of a command (execve(2), MAX_ARG_STRLEN).
    """
    with tempfile.TemporaryDirectory(prefix="flowyml-hook-") as folder:
        given, output = Path(folder) / "arguments.json", Path(folder) / "output"
        given.write_text(json.dumps(arguments))
        command = [sys.executable, str(bundle), "hook", event, "--arguments", f"@{given}"]
        with output.open("wb") as file:
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=_environment())
        lines = _text(output.read_bytes()).splitlines()
        print(*printed(lines), sep="\n", end="\n" if lines else "", flush=True)


def _with_level(level: str | None, line: str) -> str:
    """A line of a pod's log: what is more or less than INFO says so."""
    return line if level in (None, "INFO") else f"{level}: {line}"


def leveled(line: str) -> tuple[str, str]:
    """The level of a line of a pod's log, and the line without it.

    >>> leveled("WARNING: it rains"), leveled("NOTE: it rains")
    (('WARNING', 'it rains'), ('INFO', 'NOTE: it rains'))
    """
    level, colon, message = line.partition(": ")
    return (level, message) if colon and level in _LEVELS else ("INFO", line)


def printed(lines: Sequence[str]) -> list[str]:
    """Lines of a user's code as the pod's log gets them: none is taken for what the launcher itself tells.

    >>> printed(["done", 'flowyml-result {"outputs":{}}'])
    ['done', ' flowyml-result {"outputs":{}}']
    """
    return [f" {line}" if line.startswith(RESULT) else line for line in lines]


def _environment() -> dict[str, str]:
    if LOCAL not in os.environ:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if name != _SAFE_PATH}


class _Streams:
    """Pipes in, whole lines out."""

    def __init__(self, sinks: Mapping[IO[bytes], Callable[[Sequence[str]], None]]) -> None:
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}
        self._sinks = {pipe.fileno(): sink for pipe, sink in sinks.items()}
        for number in self._sinks:
            os.set_blocking(number, False)
            self._rest[number] = b""
            self._selector.register(number, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for number, rest in self._rest.items():
            if rest:
                self._sinks[number]([_text(rest)])
        self._selector.close()

    def pump(self, seconds: float) -> None:
        """Give out what is there, or comes within the time: one piece of it, for there may be no end of it."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            number = key.fd
            *whole, self._rest[number] = (self._rest[number] + self._read(number)).split(b"\n")
            if whole:
                self._sinks[number]([_text(line).removesuffix("\r") for line in whole])

    def _read(self, number: int) -> bytes:
        try:
            data = os.read(number, _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._selector.unregister(number)
        return data


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _end(process: subprocess.Popen[Any], leader: ProcessIdentity) -> None:
    if not signal_group(leader, signal.SIGKILL):  # as where the process table cannot be read
        process.kill()


def _die_with_parent() -> None:
    """No step outlives the task that runs it."""
    import ctypes

    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
