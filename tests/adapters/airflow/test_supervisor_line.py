"""Airflow 3's line to the supervisor of a task, which is private: the worker reads away what nobody reads any more."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowyml_airflow import supervisor_line
from tests.engines.airflow import airflow_python

RUNNER = "airflow.sdk.execution_time.task_runner"
CONTRACT = """
import logging, socket, sys
from importlib.util import module_from_spec, spec_from_file_location
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, _ResponseFrame

spec = spec_from_file_location("supervisor_line", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
assert "SUPERVISOR_COMMS" in task_runner.__annotations__
assert supervisor.InProcessSupervisorComms
task, other = socket.socketpair()
task_runner.SUPERVISOR_COMMS = CommsDecoder(socket=task)
other.sendall(_ResponseFrame(id=0).as_bytes() * 2)
said = []
logging.getLogger("airflow.task").addFilter(lambda record: said.append(record.getMessage()))
module.drop_unread_answers()
assert not said, said
task.setblocking(False)
try:
    left = task.recv(1)
except BlockingIOError:
    print("nothing is left")
"""


@pytest.mark.airflow
@pytest.mark.slow
def test_the_line_is_as_the_installed_airflow_has_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [airflow_python(3), "-c", CONTRACT, str(supervisor_line.__file__)], capture_output=True, text=True, check=False,
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["nothing is left"], done.stderr


def test_a_line_of_another_shape_is_reported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        supervisor_line.drop_unread_answers()  # Airflow 2 has none
        task, other = socket.socketpair()
        with task, other:
            line = SimpleNamespace(socket=task)
            monkeypatch.setitem(sys.modules, RUNNER, SimpleNamespace(SUPERVISOR_COMMS=line))
            supervisor_line.drop_unread_answers()  # nothing waits there
            assert not caplog.records
            other.sendall(b"an answer")
            supervisor_line.drop_unread_answers()
    assert "FlowyML does not know how tasks of this Airflow talk to their supervisor" in caplog.text


def test_the_answer_of_a_busy_api_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a ``select`` that has it only for those who wait longer than half a second, so that no test has to."""
    answers = ["an answer that takes half a second"]

    def select(reading: list[object], writing: object, failing: object, seconds: float) -> tuple[list[object], ...]:
        return (reading if answers and seconds > 0.5 else [], [], [])

    line = SimpleNamespace(socket=None, _read_frame=answers.pop)
    monkeypatch.setattr(supervisor_line, "select", SimpleNamespace(select=select))
    monkeypatch.setitem(sys.modules, RUNNER, SimpleNamespace(SUPERVISOR_COMMS=line))
    supervisor_line.drop_unread_answers()
    assert not answers
