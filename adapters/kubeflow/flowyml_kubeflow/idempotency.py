"""One run for one run id, although KFP gives any number of runs the same name.

Each submission puts a mark of its own into the run that it creates, and keeps the run only if afterwards it sees no
other of that name; else it deletes it and takes the other. Of two runs, the one that was stored later is created by
somebody who sees the first. So never are two kept, however slow the answers are. Where both see both, the older
waits for the other to go.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

from flowyml.core.errors import EngineError
from flowyml_kubeflow.client import AmbiguousError, Client, NotFoundError, equals
from flowyml_kubeflow.deploy import Pipelines, about, facts

__all__ = ["RunsByName"]

_LOOKS = (0.1, 0.5, 1.0, 2.0)  # seconds between looks for what a lost answer may have made
_SETTLES = 0.5  # seconds in which somebody else may take back a run that has just been created
_PATIENCE = 10  # looks, a slice apart, for those to go who have to
_SLICE = 0.2
_ROUNDS = 5
_LONGEST = 255  # characters of a description, in MySQL; source: KFP, model/run.go


class RunsByName:
    """The runs of a KFP, by the name that FlowyML gives them: the run id."""

    def __init__(self, pipelines: Pipelines) -> None:
        self.pipelines = pipelines
        self.client: Client = pipelines.client

    def submitted(
        self, run_id: str, pipeline: str, revision: str | None, make: Callable[[], Any], check: Callable[[Any], None]
    ) -> str:  # fmt: skip
        """KFP's id of the one run of that name, which is created from ``make()`` when there is none.

        ``check`` is given the run that is there already, and raises an error if that is another than the one wanted.
        Raises ``AmbiguousError`` when KFP stays silent, so that there may be a run.
        """
        body = None
        for _ in range(_ROUNDS):
            if found := self._settled(run_id):
                check(found)
                return str(found.run_id)
            body = body or make()
            mark = uuid.uuid4().hex[:16]
            body.description = _description(pipeline, mark, revision)
            created = self._created(run_id, mark, body)
            if self._is_kept(run_id, created):
                return created
            self._deleted(created)
        raise EngineError(f"Run {run_id!r} is being submitted by so many at once that none came first. Try again.")

    def _settled(self, run_id: str) -> Any:
        """The one run of that name. Of several all but one are taken back; and one that has not begun is looked at
        twice, since its maker may take it back."""
        runs = self.named(run_id)
        if runs and any(run.state in (None, "PENDING") for run in runs):
            time.sleep(_SETTLES)
            runs = self.named(run_id)
        for _ in range(_PATIENCE):
            if len(runs) < 2:
                break
            time.sleep(_SLICE)
            runs = self.named(run_id)
        return runs[0] if runs else None

    def _created(self, run_id: str, mark: str, body: Any) -> str:
        for pause in (*_LOOKS, None):
            try:
                made = self.client.write(lambda api: api._run_api.run_service_create_run(body, **self.client.limits))
                return str(made.run_id)
            except AmbiguousError:
                if pause is None:
                    raise
                time.sleep(pause)
                ours = [run for run in self.named(run_id) if facts(run.description).get("submission") == mark]
                if ours:
                    return str(ours[0].run_id)
        raise AssertionError

    def _is_kept(self, run_id: str, created: str) -> bool:
        """Whether there is no other, perhaps after those that are younger have gone."""
        for _ in range(_PATIENCE):
            runs = [str(run.run_id) for run in self.named(run_id)]
            if runs == [created]:
                return True
            if runs and runs[0] != created:
                return False
            time.sleep(_SLICE)
        return False

    def _deleted(self, created: str) -> None:
        with contextlib.suppress(NotFoundError):  # a lost answer is asked for again
            self.client.read(lambda api: api._run_api.run_service_delete_run(created, **self.client.limits))

    def named(self, run_id: str) -> list[Any]:
        """All runs of that name, the oldest first."""
        found = self.client.pages(
            lambda api: api._run_api.run_service_list_runs, "runs",
            filter=equals(display_name=run_id), **self.pipelines.scope,
        )  # fmt: skip
        runs = [run for run in found if run.display_name == run_id]
        return sorted(runs, key=lambda run: (run.created_at, run.run_id))


def _description(pipeline: str, mark: str, revision: str | None = None) -> str:
    """The pipeline's name, if there is room for it: what KFP knows of the pipeline has it too."""
    told = {"submission": mark, **({"revision": revision} if revision else {})}
    text = about({"pipeline": pipeline, **told})
    return text if len(text) <= _LONGEST else about(told)
