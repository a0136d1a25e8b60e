"""Decide which step runs when. The workers do it among themselves; no thread is there only to schedule.

The calling thread is the first worker. Another is started only when a step is ready that nobody is free for, so a
chain of steps runs wholly in the calling thread.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from flowyml.core.errors import (
    StepCancelledError,
    StepCrashedError,
    StepError,
    StepFailedError,
    StepTimeoutError,
)
from flowyml.core.retry_policy import error_names
from flowyml.orchestrators.local.graph import Node
from flowyml.orchestrators.local.schema import StepRow
from flowyml.orchestrators.local.stopping import Slot
from flowyml.runtime.tracebacks import described

__all__ = ["Engine", "error_text"]


class Engine:
    """Runs the nodes of one run to their ends.

    ``note`` is told each time a node's row changed, and ``failed`` each time an attempt failed, with the seconds until
    the next one, if there is one.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        max_workers: int,
        note: Callable[[StepRow], object],
        failed: Callable[[Node, BaseException, float | None], None],
    ) -> None:
        self.nodes = nodes
        self.stop_event = threading.Event()
        self.stopping: str | None = None
        self._call: Callable[[Node], dict[str, Any]] = _not_begun
        self._note = note
        self._report = failed
        self._max_helpers = max_workers - 1
        self._condition = threading.Condition()
        self._ready = deque(node for node in nodes if not node.waits)
        self._retries: list[tuple[float, int, Node]] = []
        self._left = len(nodes)
        self._idle = 0
        self._helpers: list[threading.Thread] = []
        self._slots: list[Slot] = []
        self._broken: BaseException | None = None

    def run(self, call: Callable[[Node], dict[str, Any]]) -> None:
        """Return when every step has ended and every thread too. ``call`` runs one attempt and gives its outputs.

        An interrupt of the calling thread (``KeyboardInterrupt``) stops the run, and is raised when it has stopped.
        """
        interrupt: BaseException | None = None
        self._call = call
        try:
            self._work()
        except BaseException as error:
            interrupt = error
            self.stop("cancelled")
        for helper in self._helpers:
            helper.join()
        self.end_the_rest()
        if reason := interrupt or self._broken:
            raise reason

    def stop(self, reason: str) -> None:
        """Begin no more steps and end those that run. ``reason`` becomes their raw status; the first one stands."""
        with self._condition:
            self.stopping = self.stopping or reason
            self.stop_event.set()
            self._condition.notify_all()
        self.interrupt()

    def interrupt(self) -> None:
        """End the steps that run in threads; again, if the first time was ignored."""
        for slot in tuple(self._slots):
            slot.interrupt()

    @property
    def is_inside_step(self) -> bool:
        """True while the calling thread runs a step of the user's."""
        return bool(self._slots) and self._slots[0].is_open

    # What each worker does.

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
            self._attempt(node, slot)
            node = self._next(node)

    def _attempt(self, node: Node, slot: Slot) -> None:
        node.attempt += 1
        started = time.time()
        self._mark(node, StepRow(node.position, "RUNNING", "running", node.attempt, started))
        try:
            if node.apart:
                node.values = self._call(node)
            else:
                with slot:
                    node.values = self._call(node)
        except BaseException as error:
            slot.close()
            self._fail(node, error, started)
            if isinstance(error, KeyboardInterrupt) and slot is self._slots[0]:
                raise
        else:
            self._mark(node, StepRow(node.position, "COMPLETED", "completed", node.attempt, started, time.time()))

    def _fail(self, node: Node, error: BaseException, started: float) -> None:
        node.error = error
        status, raw = self._verdict(error)
        delay = None if status == "CANCELLED" else self._delay(node, error)
        if delay is not None:
            node.due = time.monotonic() + delay
            status, raw = "QUEUED", "awaiting_retry"
        text = error_text(error)
        self._mark(node, StepRow(node.position, status, raw, node.attempt, started, time.time(), text))
        if status != "CANCELLED":
            self._report(node, error, delay)

    def _verdict(self, error: BaseException) -> tuple[str, str]:
        if self.stopping and isinstance(error, StepCancelledError):
            return "CANCELLED", self.stopping
        if isinstance(error, StepCancelledError | KeyboardInterrupt):
            return "CANCELLED", "cancelled"
        if isinstance(error, StepTimeoutError):
            return "TIMEOUT", "timeout"
        return "FAILED", "crashed" if isinstance(error, StepCrashedError) else "failed"

    def _delay(self, node: Node, error: BaseException) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        policy = node.step.retry
        if policy is None or self.stopping or node.attempt >= policy.max_attempts:
            return None
        names = error.names if isinstance(error, StepFailedError) and error.names else error_names(error)
        retries = policy.retries_on_names(names)
        return policy.delays[node.attempt - 1] if retries else None

    def _mark(self, node: Node, row: StepRow) -> None:
        node.row = row
        self._note(row)

    # What they decide among themselves.

    def _next(self, done: Node | None) -> Node | None:
        """Book the step that was just run, and give the next one; wait until there is one. None: the run is over."""
        with self._condition:
            if done is not None:
                self._book(done)
            while self._left and not self.stopping:
                if self._retries:
                    self._wake_retries()
                if self._ready:
                    node = self._ready.popleft()
                    if self._ready or self._retries:
                        self._call_for_help()
                    return node
                self._wait()
            self._condition.notify_all()
            return None

    def _wait(self) -> None:
        self._idle += 1
        try:
            self._condition.wait(self._retries[0][0] - time.monotonic() if self._retries else None)
        finally:
            self._idle -= 1

    def _book(self, node: Node) -> None:
        if node.row.status == "QUEUED":
            heapq.heappush(self._retries, (node.due, node.position, node))
            self._condition.notify()
            return
        self._left -= 1
        node.release()
        if node.row.status == "COMPLETED":
            node.forget_unused()
            for follower in node.followers:
                follower.waits -= 1
                if not follower.waits:
                    self._ready.append(follower)
        elif not self.stopping:
            self._skip_followers(node)

    def _skip_followers(self, node: Node) -> None:
        now = time.time()
        error = f"not run, since step {node.step.name!r} ended {node.row.status}"
        for follower in node.still_waiting():
            self._left -= 1
            follower.release()
            self._mark(follower, StepRow(follower.position, "CANCELLED", "upstream_failed", 0, None, now, error))

    def _wake_retries(self) -> None:
        while self._retries and self._retries[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._retries)[2])

    def _call_for_help(self) -> None:
        if self._idle:
            self._condition.notify(len(self._ready) or 1)
        elif len(self._helpers) < self._max_helpers:
            context = copy_context()
            helper = threading.Thread(target=context.run, args=(self._help,), name="flowyml-worker", daemon=True)
            self._helpers.append(helper)
            helper.start()

    def end_the_rest(self) -> None:
        """Mark what has not ended as cancelled."""
        reason = self.stopping or "cancelled"
        for node in self.nodes:
            if not node.ended:
                started, attempt = node.row.started, node.row.attempt
                self._mark(node, StepRow(node.position, "CANCELLED", reason, attempt, started, time.time()))


def _not_begun(node: Node) -> dict[str, Any]:
    raise RuntimeError(f"step {node.step.name!r} was called before the run began")


def error_text(error: BaseException) -> str:
    """``ValueError: wrong shape``; FlowyML's own errors are sentences already."""
    return str(error) if isinstance(error, StepError) and str(error) else described(error)
