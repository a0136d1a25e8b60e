"""Whom a signal may hit: only the process, or the group, that was meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flowyml.core.process_identity import (
    ProcessIdentity,
    born,
    identity_of,
    is_alive,
    same_process,
    signal_group,
    signal_process,
    this_process,
)
from flowyml.runtime.process_tree import descendants, kill_tree
from flowyml_kubeflow.attempts import LOCAL
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.supervisor import stop_steps
from tests.waiting import wait_until

SLEEP = "import time; time.sleep(600)"


@contextmanager
def started(code: str = SLEEP) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True)
    leader = identity_of(process.pid)
    try:
        yield process
    finally:
        signal_group(leader, signal.SIGKILL)
        process.communicate()


def with_a_child(end: str) -> str:
    return (
        f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); "
        f"print(p.pid, flush=True); {end}"
    )


def as_if_used_again(process: ProcessIdentity) -> ProcessIdentity:
    """What a record holds whose process has ended, and whose id another process has by now."""
    boot, _, ticks = process.born.partition("/")
    return replace(process, born=f"{boot}/{int(ticks) - 1}")


def test_a_process_is_its_id_its_birth_and_the_boot() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert is_alive(me) is True
    boot, _, ticks = me.born.partition("/")
    assert len(boot) == 32
    for other in (f"{boot}/{int(ticks) + 1}", f"{'0' * 32}/{ticks}"):
        assert is_alive(replace(me, born=other)) is False
        assert not same_process(replace(me, born=other))
    for unknown in (replace(me, born=""), replace(me, host="elsewhere")):
        assert is_alive(unknown) is None
        assert not same_process(unknown)


def test_a_process_that_was_not_meant_gets_no_signal() -> None:
    with started() as process:
        found = identity_of(process.pid)
        for other in (as_if_used_again(found), replace(found, born=""), replace(found, host="elsewhere")):
            assert not signal_process(other, signal.SIGKILL)
            assert not signal_group(other, signal.SIGKILL)
            kill_tree(other)
        assert process.poll() is None
        assert signal_process(found, signal.SIGKILL)
        assert process.wait(2400) == -signal.SIGKILL
        assert not signal_process(found, signal.SIGKILL)


def test_a_group_is_ended_after_its_leader_was_reaped_while_it_still_has_members() -> None:
    with started(with_a_child("pass")) as process:
        leader = identity_of(process.pid)
        assert process.stdout is not None
        child = identity_of(int(process.stdout.readline()))
        process.wait(2400)
        assert born(leader.pid) is None
        assert same_process(child)
        assert signal_group(leader, signal.SIGKILL)
        wait_until(lambda: not same_process(child))
        wait_until(lambda: not signal_group(leader, signal.SIGKILL))  # once the child was waited for, too


def test_a_child_that_has_ended_is_known_until_it_is_waited_for() -> None:
    with started(with_a_child("pass")) as process:
        assert process.stdout is not None
        child = identity_of(int(process.stdout.readline()))
        wait_until(lambda: born(process.pid) is None)
        leader = identity_of(process.pid)
        assert leader.born
        assert is_alive(leader) is False
        kill_tree(leader)
        wait_until(lambda: not same_process(child))


def test_the_tree_of_a_process_is_ended_with_groups_of_their_own() -> None:
    code = with_a_child("time.sleep(600)").replace("])", "], start_new_session=True)")
    with started(code) as process:
        assert process.stdout is not None
        child = identity_of(int(process.stdout.readline()))
        assert child in descendants(process.pid)
        kill_tree(identity_of(process.pid))
        wait_until(lambda: not same_process(child))


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/ns_last_pid"), reason="needs CONFIG_CHECKPOINT_RESTORE")  # noqa: PTH110
def test_an_id_that_was_really_used_again_is_left_alone() -> None:
    with started("pass") as first:
        gone = identity_of(first.pid)
        first.wait(2400)
    for _ in range(200):
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:  # noqa: PTH123
                file.write(str(gone.pid - 1))
        except OSError:
            pytest.skip("may not choose the next process id")
        with started() as other:
            if other.pid != gone.pid:
                continue
            assert not signal_process(gone, signal.SIGKILL)
            assert not signal_group(gone, signal.SIGKILL)
            kill_tree(gone)
            assert other.poll() is None
            return
    pytest.skip("the id went to another process each time")


def recorded_by_kfps_local_runner(folder: Path, pid: int, birth: str) -> RunFolder:
    """A run whose KFP process is this process."""
    run = RunFolder(folder)
    run.write("run.json", {"runner": "subprocess"})
    run.write("kfp.json", {"group": pid, "born": birth})
    return run


def test_kfps_local_runner_ends_what_a_run_left_behind(tmp_path: Path) -> None:
    with started() as process:
        stop_steps(recorded_by_kfps_local_runner(tmp_path, process.pid, identity_of(process.pid).born))
        assert process.wait(2400) == -signal.SIGKILL


@pytest.mark.parametrize("birth", ["an earlier one", "long ago", ""])
@pytest.mark.parametrize("leader", ["lives", "was not waited for"])
def test_kfps_local_runner_leaves_a_number_alone_that_is_another_process_by_now(
    tmp_path: Path, birth: str, leader: str
) -> None:
    """As after a restart of the machine. A leader that has ended, and was not waited for, still has its number."""
    end = "time.sleep(600)" if leader == "lives" else "sys.exit()"
    with started(with_a_child(end)) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        if leader != "lives":
            wait_until(lambda: born(process.pid) is None)
        birth = as_if_used_again(identity_of(process.pid)).born if birth == "an earlier one" else birth
        stop_steps(recorded_by_kfps_local_runner(tmp_path, process.pid, birth))
        assert born(child) is not None
        assert process.poll() in (None, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the environment of a process")
@pytest.mark.parametrize("is_its_own", [True, False])
def test_kfps_local_runner_ends_a_group_without_its_leader_if_it_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_its_own: bool
) -> None:
    """The leader's id may have been used again, by one that led a group and has ended too."""
    if is_its_own:
        monkeypatch.setenv(LOCAL, str(tmp_path))
    with started(with_a_child("sys.exit()")) as process:
        assert process.stdout is not None
        child = identity_of(int(process.stdout.readline()))
        birth = identity_of(process.pid).born
        process.wait(2400)
        stop_steps(recorded_by_kfps_local_runner(tmp_path, process.pid, birth))
        if is_its_own:
            wait_until(lambda: not same_process(child))
        else:
            assert same_process(child)
