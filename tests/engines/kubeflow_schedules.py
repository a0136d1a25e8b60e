"""Recurring runs on the fake of KFP's API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import kfp_server_api
from croniter import croniter

from tests.engines.kubeflow_runs import Runs
from tests.engines.kubeflow_state import State


class Schedules:
    """Fires recurring runs. As KFP does, with as little as a name and the version of the pipeline."""

    def __init__(self, state: State, runs: Runs) -> None:
        self.state = state
        self.runs = runs
        self._fired: dict[str, datetime] = {}

    def fire(self) -> None:
        """All that is due. Source: crd/controller/scheduledworkflow/util, scheduled_workflow.go."""
        now = self.state.now().replace(microsecond=0)
        for item in list(self.state.recurring.values()):
            while item.status == "ENABLED" and (due := self._next(item, now)) and due <= now:
                earlier = [run for run in self.state.runs.values() if run.recurring_run_id == item.recurring_run_id]
                if sum(not self.runs.refreshed(run).finished_at for run in earlier) >= int(item.max_concurrency):
                    break  # until one has ended
                self._fired[item.recurring_run_id] = due
                self._create(item, len(earlier) + 1, due)

    def _next(self, item: Any, now: datetime) -> datetime | None:
        """The next time, whether it has passed or not; without catching up, at once what was missed. Source: there,
        cron_schedule.go and periodic_schedule.go."""
        when = item.trigger.cron_schedule or item.trigger.periodic_schedule
        last = self._fired.get(item.recurring_run_id) or when.start_time or item.created_at
        following = _times(item.trigger, max(last, when.start_time or last))
        first, second = next(following), next(following)
        if item.no_catchup and now >= second:
            first = (
                now if item.trigger.periodic_schedule else max(_until(now, itertools.chain([first, second], following)))
            )
        return first if when.end_time is None or first <= when.end_time else None

    def _create(self, item: Any, number: int, at: datetime) -> None:
        self.runs.create(
            kfp_server_api.V2beta1Run(
                display_name=f"{item.display_name}-{number}", recurring_run_id=item.recurring_run_id,
                experiment_id=item.experiment_id, pipeline_version_reference=item.pipeline_version_reference,
                runtime_config=item.runtime_config,
            ), at,
        )  # fmt: skip


def _until(now: datetime, times: Iterator[datetime]) -> Iterator[datetime]:
    return itertools.takewhile(lambda time: time <= now, times)


def _times(trigger: Any, after: datetime) -> Iterator[datetime]:
    """Strictly later than a time; an interval later, for an interval."""
    if trigger.cron_schedule:
        found = croniter(trigger.cron_schedule.cron, after, second_at_beginning=True)
        return iter(lambda: found.get_next(datetime), None)
    every = timedelta(seconds=int(trigger.periodic_schedule.interval_second))
    return (after + number * every for number in itertools.count(1))
