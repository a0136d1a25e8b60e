"""Trigger a DAG and wait for it: the function of an ``external_dag`` step, which needs only Python.

The bundle contains this package, since the step's function uses it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from ssl import SSLError
from typing import Any
from urllib.parse import quote

from flowyml.artifacts import is_reference
from flowyml.core.credentials import Auth, lacks_permission
from flowyml.core.durations import span_text
from flowyml.core.errors import AuthenticationError, StepCancelledError, StepError
from flowyml.core.urls import redact_url
from flowyml.core.web import JsonObject, exchange
from flowyml.plan.model import Constant, FromParameter, Step
from flowyml.plan.names import slug
from flowyml.runtime.running_step import current_step, holds_secret
from flowyml.runtime.shutdown import StepStopped
from flowyml_airflow.connection import Connection, Token, permission, refusal
from flowyml_airflow.status import no_tasks_at

__all__ = ["Calls", "External", "conf_of", "run_name", "run_page"]


@dataclass(frozen=True)
class External:
    """A DAG to run. ``poll_interval`` and ``patience`` are in seconds.

    ``login`` names the environment variables that are credentials for ``url``, wherever that is.
    """

    dag_id: str
    conf: Mapping[str, Any]
    url: str | None
    poll_interval: float
    patience: float
    login: tuple[str, ...] = ()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the DAG once and return how its run ended. Raises ``RuntimeError`` if that run fails.

        A signal that ends this step also fails the DAG's run, once that run was requested.
        """
        login = {name.removeprefix("FLOWYML_AIRFLOW_").lower(): os.environ.pop(name, "") for name in self.login}
        airflow = Calls(self.url, self.dag_id, self.patience, Auth(**login) if login else None)
        with _sigterm_interrupts():
            for run_id in self._run_ids(inputs):
                try:
                    if self._has_begun(airflow, run_id, inputs):
                        page = airflow.page(run_id)
                        print(f"Airflow runs {self.dag_id}: {page}", flush=True)
                        state = self._wait(airflow, run_id)
                        break
                except (KeyboardInterrupt, StepCancelledError, StepStopped):
                    airflow.fail(run_id)
                    raise
        if state != "success":
            how = "failed" if state == "failed" else "lost its run"
            raise RuntimeError(f"The DAG {self.dag_id!r} {how}: see {page}")
        if holds_secret(page):  # an output that contains one is refused, after the DAG has run
            print("The address of Airflow is a secret of this step, so its output has no url.", flush=True)
            page = ""
        return {"dag_id": self.dag_id, "run_id": run_id, "state": state, "url": page}

    def _name(self, inputs: Mapping[str, Any]) -> str:
        """Return a name for all attempts of this step in this run, and for no other step or run."""
        step = current_step()
        if step is None or step.run_id == "by-hand":  # see `flowyml.runtime.cli`
            return run_name(self.dag_id, uuid.uuid4().hex)
        return run_name(self.dag_id, step.pipeline, step.run_id, step.step, self.conf, inputs)

    def _run_ids(self, inputs: Mapping[str, Any]) -> Iterator[str]:
        """Yield ids for the DAG's runs: the next one is used if the run of the last one failed."""
        ours = self._name(inputs)
        yield ours
        yield from (f"{ours}-{number}" for number in itertools.count(2))

    def _has_begun(self, airflow: Calls, run_id: str, inputs: Mapping[str, Any]) -> bool:
        """Start the run if it does not exist. Return False if it has failed, else True."""
        state = airflow.state(run_id)
        if state is None:
            airflow.trigger(run_id, {**self.conf, **inputs})
        return state != "failed"

    def _wait(self, airflow: Calls, run_id: str) -> str:
        """Wait for the end of the DAG's run; return its state."""
        while (state := airflow.state(run_id)) not in ("success", "failed", None):
            time.sleep(self.poll_interval)
        return state or "deleted"


def conf_of(step: Step, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a step for the conf of a DAG's run; ``inputs`` are the packed outputs of other steps.

    Raises ``StepError`` for one that is not small plain JSON.
    """
    conf = dict(inputs)
    for item in step.inputs:
        if isinstance(item.source, Constant):
            conf[item.name] = item.source.value
        elif isinstance(item.source, FromParameter):
            conf[item.name] = parameters[item.source.name]
        if any(map(is_reference, parts if isinstance(parts := conf[item.name], list) else [parts])):
            raise StepError(
                f"step {step.name!r} gives {item.name!r} to another DAG, whose conf is plain JSON. Return up to 64 KiB "
                f"of it, or the path of a file."
            )
    return conf


def run_name(dag_id: str, *facts: Any) -> str:
    """Return an id for a DAG's run, which these facts determine."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"flowyml-{slug(dag_id, max_length=60)}-{digest[:12]}"


def run_page(root: str, dag_id: str, run_id: str, major: int) -> str:
    """Return the address of a DAG's run in Airflow's UI."""
    there = f"runs/{run_id}" if major == 3 else f"grid?dag_run_id={run_id}"
    return f"{root}/dags/{quote(dag_id, safe='')}/{there}"


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for a SIGTERM within the block; otherwise it would end this process at once."""
    before = None
    with suppress(ValueError):  # signals go to the main thread only
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # else this step is asked to stop by an exception
            before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt("The step was asked to stop.")


class Calls:
    """The calls that this step needs, on Airflow 3 and 2."""

    def __init__(self, url: str | None, dag_id: str, patience: float, auth: Auth | None = None) -> None:
        self.connection = Connection.to(url, auth)
        if not self.connection.url:
            raise LookupError(
                "No Airflow URL is set. Set FLOWYML_AIRFLOW_URL on the worker, such as "
                "https://airflow.example.org, or give external_dag(…, url=…)."
            )
        self.root = self.connection.url
        self.dag_id = dag_id
        self.patience = patience
        self.credentials: Auth | Token | None = None  # none is needed to ask for the version
        self.api = self._api()
        self.dag = f"/api/{self.api}/dags/{quote(dag_id, safe='')}"
        auth = self.connection.auth
        self.credentials = Token(auth, self._log_in) if self.api == "v2" else auth

    def state(self, run_id: str) -> str | None:
        """Return the state of a run; None if it does not exist."""
        status, answer = self._call("GET", self._run(run_id))
        if status == 404:
            return None
        self._check(status, answer, self._run(run_id))
        return str(answer["state"])

    def trigger(self, run_id: str, conf: Mapping[str, Any]) -> None:
        """Start a run, unless the DAG is paused. A run that an earlier try started is left alone."""
        status, answer = self._call("GET", self.dag)
        if status == 404:
            raise RuntimeError(f"Airflow at {self.root} has no DAG {self.dag_id!r}. Deploy it there first.")
        self._check(status, answer, self.dag)
        if answer["is_paused"]:
            raise RuntimeError(
                f"The DAG {self.dag_id!r} is paused in Airflow, so its run would wait forever. Unpause it there. "
                "(A DAG that FlowyML deployed stays paused until its first run unless its pipeline sets "
                "airflow={'is_paused_upon_creation': False}.)"
            )
        self._check_has_tasks()
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": dict(conf)}
        if self.api == "v2":
            body["logical_date"] = datetime.now(UTC).isoformat()  # else Airflow 3 has no {{ ds }} for its operators
        status, answer = self._call("POST", f"{self.dag}/dagRuns", body)
        if status in (401, 403):
            self._check(status, answer, f"{self.dag}/dagRuns", "POST")
        if status >= 300 and status != 409:
            raise RuntimeError(f"Airflow at {self.root} did not start {self.dag_id!r} ({status}): {answer!s:.300}")

    def _check_has_tasks(self) -> None:
        """Refuse a DAG that has not begun or is over: its run would have no tasks, and succeed."""
        why = ""
        with suppress(OSError, HTTPException, RuntimeError):  # a check that cannot be made does not refuse the run
            status, answer = self._answer("GET", f"{self.dag}/details", None, self._headers())
            why = no_tasks_at(datetime.now(UTC), answer) if status == 200 else ""
        if why:
            raise RuntimeError(f"The DAG {self.dag_id!r} was not started: its run would do nothing. {why}")

    def fail(self, run_id: str) -> None:
        """Mark the run as failed, in one try of a few seconds: a step that is asked to stop is killed soon."""
        with suppress(Exception):
            self._answer("PATCH", self._run(run_id), {"state": "failed"}, self._headers(), timeout=5)

    def page(self, run_id: str) -> str:
        """Return the address of the run in Airflow's UI."""
        return run_page(self.root, self.dag_id, run_id, 3 if self.api == "v2" else 2)

    def _run(self, run_id: str) -> str:
        return f"{self.dag}/dagRuns/{run_id}"

    def _check(self, status: int, answer: Any, path: str, method: str = "GET") -> None:
        if status in (401, 403):
            refused = refusal(self.connection, status, known=self.api == "v2")
            needed = lacks_permission(f"{method} {path}", permission(method, path), "") if status == 403 else ""
            raise AuthenticationError(f"{refused} {needed}".rstrip())
        if status >= 300:
            raise RuntimeError(f"Airflow at {self.root} answered {status} to {path}: {answer!s:.300}")

    def _api(self) -> str:
        for api in ("v2", "v1"):
            if self._patient("GET", f"/api/{api}/version", headers=self._headers())[0] == 200:
                return api
        raise LookupError(f"{self.root} responds, but is not Airflow. Is the URL right?")

    def _log_in(self) -> str:
        """Return a new token. A password from a file or a command is read again when it is refused."""
        auth = self.connection.auth
        while True:
            credentials = {"username": auth.username, "password": auth.password.get()}
            status, answer = self._patient("POST", "/auth/token", credentials, auth.cookie_header())
            if status < 300:
                return str(answer["access_token"])
            if status not in (401, 403) or not auth.password.renew(credentials["password"] or ""):
                raise refusal(self.connection, 401)

    def _headers(self) -> dict[str, str]:
        return self.credentials.headers() if self.credentials else self.connection.auth.cookie_header()

    def _call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and answer. Log in again when the token expires, and wait while Airflow does not answer."""
        for _ in range(3):
            headers = self._headers()
            status, content = self._patient(method, path, body, headers)
            if status not in (401, 403) or not (self.credentials and self.credentials.renew(headers)):
                break
        return status, content

    def _patient(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        """Repeat a call while Airflow does not answer or has an error of its own, and for no other reason."""
        deadline, pause = time.monotonic() + self.patience, 1.0
        while True:
            try:
                status, content = self._answer(method, path, body, headers)
                if status < 500 and status != 429:
                    return status, content
                trouble = f"answered {status}"
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                trouble = f"does not answer: {reason or type(error).__name__}"
                deadline = 0 if isinstance(reason, SSLError) else deadline
            if time.monotonic() + pause > deadline:
                raise ConnectionError(f"Airflow at {self.root} {trouble}") from None
            print(f"Airflow at {self.root} {trouble}; asking again in {span_text(pause)}", flush=True)
            time.sleep(pause)
            pause = min(pause * 2, 30)

    def _answer(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float = 30
    ) -> tuple[int, Any]:
        """Make one exchange.

        Follow no redirect, since the request may contain a password, which is for Airflow alone.
        """
        content = None if body is None else json.dumps(body).encode()
        kinds = {"Content-Type": "application/json", "Accept": "application/json"}
        answer = exchange(
            self.root + path, method=method, headers={**kinds, **headers}, body=content, timeout=timeout,
            tls=self.connection.tls,
        )  # fmt: skip
        if 300 <= answer.status < 400:
            moved = redact_url(answer.headers.get("location", "another address")).partition("?")[0]
            raise RuntimeError(
                f"{self.root} is not Airflow itself. It redirects to {moved}: is that the address of Airflow? Nothing "
                f"was sent there. Set FLOWYML_AIRFLOW_URL to it."
            )
        found = answer.json()
        if isinstance(found, dict):
            return answer.status, JsonObject(found, f"{self.root} answered {method} {path}")
        if answer.status >= 400:
            return answer.status, answer.body[:2000].decode("utf-8", "replace")
        raise RuntimeError(
            f"{self.root} answered {path} with {answer.media_type or 'nothing'} ({answer.status}), which does not come "
            f"from Airflow's API. A proxy or a login page answered, or the URL is another site's."
        )
