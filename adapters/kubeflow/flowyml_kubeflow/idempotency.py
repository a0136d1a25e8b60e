"""Create one run for one run id, although KFP gives any number of runs the same name.

Each submission adds a mark of its own to the run that it creates, and keeps the run only if afterwards it sees no other
run of that name; otherwise it deletes its run and uses the other. Of two submissions, the one whose run is stored later
sees the other's. So at most one survives, however slow the answers are. If both see both runs, the older one waits
until the other is deleted.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

from flowyml.core.errors import EngineError
from flowyml.core.runs import Run
from flowyml.orchestrators.http import NotFoundError
from flowyml_kubeflow.client import MAYBE_DONE
from flowyml_kubeflow.deployer import LONGEST_DESCRIPTION, description, facts
from flowyml_kubeflow.reader import KubeflowReader

__all__ = ["RunsByName"]

_LOOKS = (0.1, 0.5, 1.0, 2.0)  # seconds between searches for an object that a lost answer may have created
_SETTLES = 0.5  # seconds in which another process may delete the run that it has just created
_PATIENCE = 10  # polls, a slice apart, until the others are deleted
_SLICE = 0.2


class RunsByName:
    """The runs of a KFP with one FlowyML name, which is a run id."""

    def __init__(self, reader: KubeflowReader, run_id: str) -> None:
        self.reader = reader
        self.client = reader.client
        self.run_id = run_id

    def find(self) -> Run | None:
        """Return the one run of that name, if there is one.

        If there are several, all but one are deleted soon. A run that has not begun is read twice, since the process
        that created it may delete it.
        """
        runs = self._named()
        if any(run.state in (None, "PENDING") for run in runs):
            time.sleep(_SETTLES)
            runs = self._named()
        for _ in range(_PATIENCE):
            if len(runs) < 2:
                break
            time.sleep(_SLICE)
            runs = self._named()
        return self.reader.record(runs[0]) if runs else None

    def create(self, body: Any, pipeline: str, revision: str | None) -> str | None:
        """Create a run; return KFP's id of it, or None if another run of that name came first.

        Raises one of ``MAYBE_DONE`` if KFP does not answer or has an error, so that a run may exist.
        """
        mark = uuid.uuid4().hex[:16]
        body.description = _description(pipeline, mark, revision)
        created = self._create(mark, body)
        if self._is_kept(created):
            return created
        with contextlib.suppress(NotFoundError):  # a lost answer is asked for again
            self.client.call("run_service_delete_run", created)
        return None

    def _named(self) -> list[Any]:
        return self.reader.named(self.run_id)

    def _create(self, mark: str, body: Any) -> str:
        for pause in (*_LOOKS, None):
            try:
                created = self.client.call_once("run_service_create_run", body)
                return str(created.run_id)
            except MAYBE_DONE:
                if pause is None:
                    raise
                time.sleep(pause)
                ours = [run for run in self._named() if facts(run.description).get("submission") == mark]
                if ours:
                    return str(ours[0].run_id)
        raise AssertionError

    def _is_kept(self, created: str) -> bool:
        """Return whether no other run is left, perhaps after younger ones were deleted.

        Raises ``EngineError`` if KFP's list of runs does not show the new run: then nothing can be decided by it.
        """
        runs: list[str] = []
        for _ in range(_PATIENCE):
            runs = [str(run.run_id) for run in self._named()]
            if runs == [created]:
                return True
            if runs and runs[0] != created:
                return False
            time.sleep(_SLICE)
        if created not in runs:
            raise EngineError(
                f"KFP has created run {created} for run id {self.run_id!r}, but its list of runs does not show it, so "
                f"that a second run of this id might not be noticed. Is there a cache or a replica between you and "
                f"KFP? The run goes on under the id {created}."
            )
        return False


def _description(pipeline: str, mark: str, revision: str | None = None) -> str:
    """Return a description with the pipeline's name, if there is room for it: KFP's pipeline has it, too."""
    needed = {"submission": mark, **({"revision": revision} if revision else {})}
    text = description({"pipeline": pipeline, **needed})
    return text if len(text) <= LONGEST_DESCRIPTION else description(needed)
