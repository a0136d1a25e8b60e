"""Decide which step runs when. The workers do it among themselves; there is no scheduler thread.

The calling thread is the first worker. Another is started only when a step is ready and no worker is free, so a
chain of steps runs wholly in the calling thread.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Container
from contextvars import copy_context
from itertools import count
from pathlib import Path
from typing import Any

from flowyml.core.errors import StepCancelledError, StepCrashedError, StepError, StepTimeoutError
from flowyml.orchestrators.local.retrying import Done, Recorded
from flowyml.orchestrators.local.schema import StepRow, item_of
from flowyml.orchestrators.local.stopping import Slot
from flowyml.plan.model import Step
from flowyml.runtime.decider import End, Index
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.nodes import Decision, Frame, Node, Opening, Task
from flowyml.runtime.tracebacks import described, left_behind
from flowyml.runtime.walk import Walk

__all__ = ["Engine", "LocalTask", "error_text"]


class LocalTask(Task):
    """A step, or its run for one item, in the course of a run. ``row`` is its row in the store."""

    __slots__ = ("apart", "attempt", "before", "due", "error", "row")

    def __init__(self, frame: Frame, step: Step, position: int, *, apart: bool) -> None:
        super().__init__(frame, step, position)
        self.apart = apart
        self.attempt = self.before = 0  # before: those of the run's earlier tries
        self.due = 0.0
        self.error: BaseException | None = None
        self.row = StepRow(position, "QUEUED", "queued", item=item_of(self.index))

    def recall(self, done: Done) -> None:
        """Continue from its row in the database."""
        self.row, self.end = done.row, done.end
        self.attempt = self.before = done.row.attempt
        self.values = {name: Recorded(entry) for name, entry in done.entries.items()}
        if done.end is End.FAILED:
            self.cause = f"step {self.label!r} ended {done.row.status}"

    @property
    def max_attempts(self) -> int:
        """The largest number of attempts, including those of earlier tries."""
        return self.before + (self.step.retry.max_attempts if self.step.retry else 1)

    @property
    def ended(self) -> bool:
        """True if nothing will change any more."""
        return self.row.status not in ("QUEUED", "RUNNING")


class Engine:
    """Runs the steps of one run to their ends, then the clean-ups.

    ``evaluate`` evaluates whether a branch is taken, and the lists of a loop.

    ``note`` is called each time a node's row changed, and ``failed`` each time an attempt failed, with the seconds
    until the next one, if there is one. ``code_folder`` is the folder of the unpacked bundle, if there is one.
    ``known`` are the steps, by position and item, that have a row from an earlier try in the database.
    """

    def __init__(
        self,
        walk: Walk[LocalTask],
        *,
        max_workers: int,
        note: Callable[[StepRow], object],
        failed: Callable[[LocalTask, BaseException, float | None], None],
        code_folder: Path | None = None,
        known: Container[tuple[int, Index]] = (),
    ) -> None:
        self.walk = walk
        self.is_cleaning_up = False
        self.stop_event = threading.Event()
        self.stopping: str | None = None
        self._call: Callable[[LocalTask], AttemptOutputs] = _not_begun
        self._evaluate: Callable[[Decision | Opening], Any] = _not_begun
        self._note = note
        self._report = failed
        self._code_folder = code_folder
        self._known = known
        self._max_helpers = max_workers - 1
        self._condition = threading.Condition()
        self._ready = walk.ready
        self._retries: list[tuple[float, int, int, LocalTask]] = []
        self._turn = count()  # nodes of one step that are due at once have no order
        self._together: dict[str, list[LocalTask]] = {}  # by the groups of which a step runs: those that wait for it
        self._over: list[LocalTask] = []  # of groups that have ended
        self._release: Callable[[LocalTask], object] = _not_begun
        self._idle = 0
        self._helpers: list[threading.Thread] = []
        self._slots: list[Slot] = []
        self._broken: BaseException | None = None

    def run(
        self,
        call: Callable[[LocalTask], AttemptOutputs],
        evaluate: Callable[[Decision | Opening], Any],
        release: Callable[[LocalTask], object],
    ) -> None:
        """Return when every step and every thread has ended. ``call`` runs one attempt and returns its outputs.

        ``release`` is called with a step of each ended execution group.

        An interrupt of the calling thread (``KeyboardInterrupt``) stops the run, and is raised when it has stopped.
        """
        self._call, self._evaluate, self._release = call, evaluate, release
        with self._condition:
            self._note_decided()
        interrupt = self._work_together()
        if self.walk.begin_finale():
            with self._condition:
                self.is_cleaning_up = True  # from here on a signal does not stop it
                stopped_by, self.stopping = self.stopping, None
                self.stop_event.clear()
            later = self._work_together()  # also after an interrupt
            interrupt = interrupt or later
            self.stopping = stopped_by or self.stopping
        if reason := interrupt or self._broken:
            raise reason

    def _work_together(self) -> BaseException | None:
        """Work until nothing is left, and return an interrupt that ended the work."""
        interrupt: BaseException | None = None
        try:
            self._work()
        except BaseException as error:
            interrupt = error
            self.stop("cancelled")
        for helper in self._helpers:
            helper.join()
        self._helpers.clear()
        self.end_the_rest()
        return interrupt

    def stop(self, reason: str) -> None:
        """Begin no more steps and end the running ones.

        ``reason`` becomes their raw status; the first reason counts.
        """
        with self._condition:
            self.stopping = self.stopping or reason
            self.press()

    def press(self) -> None:
        """End the steps that still run although the run is being stopped; harmless otherwise."""
        with self._condition:
            if not self.stopping:  # the clean-up has begun meanwhile
                return
            self.walk.halt()
            self.stop_event.set()
            self._condition.notify_all()
            for slot in tuple(self._slots):
                slot.interrupt()

    @property
    def is_inside_step(self) -> bool:
        """True while the calling thread runs a step of the user's."""
        return bool(self._slots) and self._slots[0].is_open

    # The work of each worker.

    def _help(self) -> None:
        try:
            self._work()
        except BaseException as error:  # no step's error: those are caught where steps are called
            self._broken = error
            self.stop("failed")

    def _work(self) -> None:
        slot = Slot()
        self._slots.append(slot)
        node = self._next(None)
        while node is not None:
            if self._over:
                with self._condition:
                    over, self._over = self._over, []
                for finished in over:
                    self._release(finished)
            if isinstance(node, LocalTask):
                self._attempt(node, slot)
                node = self._next(node)
            else:
                assert isinstance(node, Decision | Opening)
                self._decide(node)
                node = self._next(None)

    def _decide(self, node: Decision | Opening) -> None:
        """Evaluate a branch or a loop, and continue from there."""
        try:
            evaluated = self._evaluate(node)
        except Exception as error:
            with self._condition:
                self.walk.fail(node, str(error))
                self._note_decided()
            return
        with self._condition:
            if self.stopping:
                self.walk.end(node, End.FAILED)
            elif isinstance(node, Opening):
                self.walk.open(node, evaluated)
            else:
                self.walk.end(node, End.OK if evaluated else End.SKIPPED)
            self._note_decided()

    def _attempt(self, node: LocalTask, slot: Slot) -> None:
        node.attempt += 1
        started = time.time()
        self._mark(node, StepRow(node.position, "RUNNING", "running", node.attempt, started))
        try:
            if node.apart:
                node.values = outputs = self._call(node)
            else:
                with slot:
                    node.values = outputs = self._call(node)
        except BaseException as error:
            slot.close()
            self._fail(node, error, started)
            if isinstance(error, KeyboardInterrupt) and slot is self._slots[0]:
                raise
        else:
            row = StepRow(node.position, "COMPLETED", "completed", node.attempt, started, time.time())
            if outputs.cached_from:
                row = row._replace(raw_status="cached", cached_from=outputs.cached_from)
            self._mark(node, row)

    def _fail(self, node: LocalTask, error: BaseException, started: float) -> None:
        node.error = error
        status, raw = self._status_of_error(error)
        delay = None
        if node.step.retry and status != "CANCELLED" and not self.stopping:
            delay = node.step.retry.delay_after(error, node.attempt - node.before)
        if delay is not None:
            node.due = time.monotonic() + delay
            status, raw = "QUEUED", "awaiting_retry"
        text = error_text(error, self._code_folder)
        self._mark(node, StepRow(node.position, status, raw, node.attempt, started, time.time(), text))
        if status != "CANCELLED":
            self._report(node, error, delay)

    def _status_of_error(self, error: BaseException) -> tuple[str, str]:
        if self.stopping and isinstance(error, StepCancelledError):
            return "CANCELLED", self.stopping
        if isinstance(error, StepCancelledError | KeyboardInterrupt):
            return "CANCELLED", "cancelled"
        if isinstance(error, StepTimeoutError):
            return "TIMEOUT", "timeout"
        return "FAILED", "crashed" if isinstance(error, StepCrashedError) else "failed"

    def _mark(self, node: LocalTask, row: StepRow) -> None:
        node.row = row._replace(item=item_of(node.index)) if node.index else row
        self._note(node.row)

    # Decisions that the workers share.

    def _next(self, done: LocalTask | None) -> Node | None:
        """Record the step that has just run, and return the next one, waiting for it; None if the run is over."""
        with self._condition:
            if done is not None:
                self._book(done)
            while self.walk.unfinished and not self.stopping:
                if self._retries:
                    self._wake_retries()
                if node := self._pop_ready():
                    if self._ready or self._retries:
                        self._call_for_help()
                    return node
                self._wait()
            self._condition.notify_all()
            return None

    def _pop_ready(self) -> Node | None:
        """Return the next ready node. Steps of an execution group with a running step have to wait."""
        while self._ready:
            node = self._ready.popleft()
            if not isinstance(node, LocalTask) or not node.together:
                return node
            if node.together not in self._together:
                self._together[node.together] = []
                return node
            self._together[node.together].append(node)
        return None

    def _let_next(self, done: LocalTask) -> None:
        """Let the worker that ran a step of an execution group continue with the group."""
        self._ready.extendleft(reversed(self._together.pop(done.together, [])))
        beside = [node for node in self._ready if isinstance(node, LocalTask) and node.together == done.together]
        for node in reversed(beside):
            self._ready.remove(node)
            self._ready.appendleft(node)

    def _note_over(self, node: LocalTask) -> None:
        if not node.is_followed(self.walk.plan.structure.execution_groups[node.step.execution_group].steps):
            self._over.append(node)

    def _wait(self) -> None:
        self._idle += 1
        try:
            self._condition.wait(self._retries[0][0] - time.monotonic() if self._retries else None)
        finally:
            self._idle -= 1

    def _book(self, node: LocalTask) -> None:
        if node.row.status == "QUEUED":
            heapq.heappush(self._retries, (node.due, node.position, next(self._turn), node))
            if node.together:
                self._let_next(node)
            self._condition.notify()
            return
        if node.row.status == "COMPLETED":
            self.walk.end(node, End.OK)
        else:
            self.walk.end(node, End.FAILED, f"step {node.label!r} ended {node.row.status}")
        if node.together:
            self._let_next(node)
            self._note_over(node)
        self._note_decided()

    def _note_decided(self) -> None:
        """Mark the steps that will not run, and those of upcoming items."""
        now = time.time()
        while self.walk.opened:
            node = self.walk.opened.popleft()
            if (node.position, node.index) not in self._known:
                self._mark(node, node.row)
        while self.walk.decided:
            node = self.walk.decided.popleft()
            if node.end is End.OK:
                row = StepRow(node.position, "COMPLETED", "no_items", 0, None, now)
            elif node.end is End.SKIPPED:
                row = StepRow(node.position, "COMPLETED", "skipped", 0, None, now)
            else:
                row = StepRow(
                    node.position, "CANCELLED", "upstream_failed", 0, None, now, f"not run, since {node.cause}"
                )
            self._mark(node, row)
            if node.together:
                self._note_over(node)

    def _wake_retries(self) -> None:
        while self._retries and self._retries[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._retries)[-1])

    def _call_for_help(self) -> None:
        if self._idle:
            self._condition.notify(len(self._ready) or 1)
        elif len(self._helpers) < self._max_helpers:
            context = copy_context()
            helper = threading.Thread(target=context.run, args=(self._help,), name="flowyml-worker", daemon=True)
            self._helpers.append(helper)
            helper.start()

    def end_the_rest(self) -> None:
        """Mark unfinished steps as cancelled, except clean-up steps that have not begun."""
        reason = self.stopping or "cancelled"
        self.walk.stop()
        self._retries.clear()
        for node in self.walk.tasks:
            if not node.ended and node.end is not None:
                started, attempt = node.row.started, node.row.attempt
                self._mark(node, StepRow(node.position, "CANCELLED", reason, attempt, started, time.time()))


def _not_begun(node: Any) -> Any:
    raise RuntimeError(f"{node.label!r} was called before the run began")


def error_text(error: BaseException, code_folder: Path | None = None) -> str:
    """Return ``ValueError: wrong shape``; FlowyML's own errors are sentences already.

    ``code_folder`` is the unpacked bundle with the code, if there is one.
    """
    if isinstance(error, StepError) and str(error):
        return str(error)
    return described(error) + (left_behind(error, code_folder.parent) if code_folder else "")
