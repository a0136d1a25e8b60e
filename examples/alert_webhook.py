"""A hook that posts to a webhook (Slack, Teams, Mattermost …) when a run fails, on every engine.

    python examples/alert_webhook.py                                       # no webhook: prints
    ALERT_WEBHOOK=https://hooks.example/… python examples/alert_webhook.py
    flowyml run examples/alert_webhook.py -p readings='[1, 2]' --on prefect

Hooks run where the steps run, so the address stands in the environment of the workers, not in the code. What a hook
raises is logged and never changes the outcome of the run.
"""

from __future__ import annotations

import json
import os
from urllib.request import Request, urlopen

from flowyml import pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook


class Alert(PipelineHook):
    """Says that something went wrong, once for each failed attempt and once for the run."""

    def on_error(self, step_name: str, error: BaseException) -> None:
        """An attempt failed; a retry may follow."""
        self._post(f"{step_name}: {type(error).__name__}: {error}")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """The run ended."""
        if not status.is_successful:
            self._post(f"{pipeline_name} ({run_id}) ended {status.name} after {duration:.1f} s")

    def _post(self, text: str) -> None:
        address = os.environ.get("ALERT_WEBHOOK")
        if address is None:
            print(f"ALERT {text}")
            return
        body = json.dumps({"text": text}).encode()
        with urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=10):
            pass


@step(outputs=["mean"])
def mean(readings: list[float]) -> float:
    """Of the sensor's readings. None at all is an error."""
    return sum(readings) / len(readings)


@pipeline(name="alert-webhook", hooks=[Alert()])
def watch_sensor(readings: list[float] = []) -> float:
    """Fails without readings."""
    return mean(readings)


if __name__ == "__main__":
    print(watch_sensor.run().status)
