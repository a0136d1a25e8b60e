"""A step that runs a DAG which exists already, from any pipeline on any engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import ConfigurationError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.urls import checked_url, without_credentials
from flowyml.plan.names import slug

if TYPE_CHECKING:
    from flowyml.authoring.steps import Step

__all__ = ["external_dag"]


def external_dag(
    dag_id: str,
    *,
    conf: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    name: str | None = None,
    url: str | None = None,
    poll_interval: float = 5,
    patience: float = 600,
    after: Sequence[str] | str = (),
    retry: int | OrchestratorRetryPolicy | None = None,
    timeout: float | None = None,
    resources: ResourceRequirements | None = None,
) -> Step[..., dict[str, Any]]:
    """A step that triggers an existing Airflow DAG, waits for its end, and fails when it fails.

    ``conf`` is handed to the DAG; ``inputs`` names outputs of other steps, or parameters, that go into it as well. The
    step's output, named like the step, tells ``dag_id``, ``run_id``, ``state`` and ``url`` of the DAG's run.

    However often the step is tried, one run of the pipeline makes one run of the DAG, and another only after that has
    failed: the DAG's run id is made from the pipeline's. What ends the step with a signal that a process can hear fails
    the DAG's run too; a step that is killed leaves it running.

    It runs on a worker that has nothing but Python. ``FLOWYML_AIRFLOW_URL`` says there which Airflow is meant, unless
    ``url`` does, and ``FLOWYML_AIRFLOW_USERNAME`` and ``_PASSWORD``, or ``_TOKEN``, who asks: no credential is in the
    pipeline. A DAG that is paused is refused, since its run would wait for ever. ``poll_interval`` is in seconds, as is
    ``patience``: how long Airflow may be silent. Raises ``ConfigurationError`` for a ``url`` with credentials.

    >>> from flowyml import Pipeline
    >>> report = external_dag("nightly_report", conf={"day": "monday"})
    >>> Pipeline("week").add_step(report).compile().steps[0].outputs
    ('nightly_report',)
    """
    from flowyml import step

    if url is not None and without_credentials(checked_url(url)) != url:
        raise ConfigurationError(
            f"external_dag({dag_id!r}): its url would put a credential into the pipeline. Give "
            f"{without_credentials(url)!r}, and set FLOWYML_AIRFLOW_USERNAME and _PASSWORD, or _TOKEN, on the workers."
        )
    made: Callable[..., Any] = step(
        name=name or dag_id, inputs=list(inputs), outputs=[name or dag_id], after=after, retry=retry, timeout=timeout,
        resources=resources, description=f"Runs the Airflow DAG {dag_id}, waits for it and fails with it.",
    )  # fmt: skip
    given: Step[..., dict[str, Any]] = made(_waiting(dag_id, dict(conf or {}), url, poll_interval, patience))
    return given


def _waiting(  # noqa: C901  # no worker has this module
    dag_id: str, conf: dict[str, Any], url: str | None, poll_interval: float, patience: float
) -> Callable[..., dict[str, Any]]:
    """The function of the step. It travels to workers by value, with all that is inside it: none has this module."""
    prefix = f"flowyml-{slug(dag_id, max_length=60)}"

    def run_external_dag(**inputs: Any) -> dict[str, Any]:  # noqa: C901  # as above
        import base64
        import hashlib
        import itertools
        import json
        import os
        import signal
        import ssl
        import time
        import uuid
        from contextlib import suppress
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.parse import quote, unquote, urlsplit, urlunsplit
        from urllib.request import Request, urlopen

        from flowyml.runtime.current import current_step

        def setting(name: str) -> str:
            return os.environ.get(f"FLOWYML_AIRFLOW_{name}", "").strip()  # files of secrets end with a line break

        class Airflow:
            """The calls that this step needs, on Airflow 3 and 2."""

            def __init__(self) -> None:
                parts = urlsplit(url or setting("URL"))
                if not parts.hostname:
                    raise LookupError(
                        "Which Airflow? Set FLOWYML_AIRFLOW_URL on the worker, like https://airflow.example.org, or "
                        "give external_dag(…, url=…)."
                    )
                self.root = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
                self.username = unquote(parts.username or "") or setting("USERNAME")
                self.password = unquote(parts.password or "") or setting("PASSWORD")
                self.token = "" if parts.username else setting("TOKEN")
                if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
                    raise ValueError("FLOWYML_AIRFLOW_TOKEN holds characters that no token has. Set it anew.")
                self.headers = {"Content-Type": "application/json", "Accept": "application/json"}
                self.api = self._api()
                self.dag = f"/api/{self.api}/dags/{quote(dag_id, safe='')}"
                self._log_in()

            def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
                """Status and answer. A token may expire while the DAG runs, and again while Airflow is silent."""
                status, found = self._patient(method, path, body)
                for _ in range(2):
                    if status in (401, 403):
                        self._log_in()
                        status, found = self._patient(method, path, body)
                return status, found

            def asked(self, method: str, path: str, body: Any = None) -> Any:
                """The answer. Raises ``RuntimeError`` for any but a good one."""
                status, found = self.call(method, path, body)
                if status >= 300:
                    raise RuntimeError(f"Airflow at {self.root} answered {status} to {path}: {found!s:.300}")
                return found

            def state(self, run_id: str) -> str | None:
                """The state of a run; None when there is none."""
                status, found = self.call("GET", self.run(run_id))
                if status != 404 and status >= 300:
                    raise RuntimeError(
                        f"Airflow at {self.root} answered {status} to {self.run(run_id)}: {found!s:.300}"
                    )
                return None if status == 404 else str(found["state"])

            def trigger(self, run_id: str) -> None:
                body: dict[str, Any] = {"dag_run_id": run_id, "conf": {**conf, **inputs}}
                if self.api == "v2":
                    body["logical_date"] = None
                status, found = self.call("POST", f"{self.dag}/dagRuns", body)
                if status >= 300 and status != 409:  # 409: an earlier try got through
                    raise RuntimeError(f"Airflow at {self.root} does not start {dag_id!r} ({status}): {found!s:.300}")

            def fail(self, run_id: str) -> None:
                """One quick try: who ends the step does not wait long."""
                with suppress(Exception):
                    self._answer("PATCH", self.run(run_id), {"state": "failed"}, timeout=5)

            def run(self, run_id: str) -> str:
                return f"{self.dag}/dagRuns/{run_id}"

            def page(self, run_id: str) -> str:
                there = f"runs/{run_id}" if self.api == "v2" else f"grid?dag_run_id={run_id}"
                return f"{self.root}/dags/{quote(dag_id, safe='')}/{there}"

            def _api(self) -> str:
                for api in ("v2", "v1"):
                    if self._patient("GET", f"/api/{api}/version")[0] == 200:
                        return api
                raise LookupError(f"{self.root} answers, but not as Airflow does. Is the address right?")

            def _log_in(self) -> None:
                if self.api == "v1" and self.username:
                    pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
                    self.headers["Authorization"] = f"Basic {pair}"
                    return
                if self.username and self.password:
                    who = {"username": self.username, "password": self.password}
                    status, found = self._patient("POST", "/auth/token", who)
                    if status >= 300:
                        raise RuntimeError(f"Airflow at {self.root} refuses user {self.username!r} ({status}).")
                    self.token = found["access_token"]
                if self.token:
                    self.headers["Authorization"] = f"Bearer {self.token}"

            def _patient(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
                """Only silence and a server in trouble are worth another try."""
                deadline, pause = time.monotonic() + patience, 1.0
                while True:
                    try:
                        status, found = self._answer(method, path, body)
                        if status < 500:
                            return status, found
                        trouble = f"answered {status}"
                    except (OSError, HTTPException) as error:
                        trouble = f"does not answer: {getattr(error, 'reason', error) or type(error).__name__}"
                        final = isinstance(getattr(error, "reason", error), ssl.SSLError)
                        deadline = 0 if final else deadline
                    if time.monotonic() + pause > deadline:
                        raise ConnectionError(f"Airflow at {self.root} {trouble}") from None
                    print(f"Airflow at {self.root} {trouble}; asking again in {pause:g} s", flush=True)
                    time.sleep(pause)
                    pause = min(pause * 2, 30)

            def _answer(self, method: str, path: str, body: Any, timeout: float = 30) -> tuple[int, Any]:
                data = None if body is None else json.dumps(body).encode()
                request = Request(self.root + path, data, self.headers, method=method)
                try:
                    with urlopen(request, timeout=timeout) as response:
                        status, text = response.status, response.read()
                        moved = "" if response.url == request.full_url else response.url
                except HTTPError as error:
                    with error:
                        status, text, moved = error.code, error.read(2000), error.headers.get("Location") or ""
                if moved:
                    moved = f" It redirects to {moved.partition('?')[0]}: is that the address of Airflow?"
                try:
                    found = json.loads(text)
                    if moved and status < 300:  # what is sent, such as a password, would not arrive there
                        raise RuntimeError(f"{self.root} is not Airflow itself.{moved} Set FLOWYML_AIRFLOW_URL to it.")
                    return status, found
                except ValueError:
                    if status >= 400 and not moved:
                        return status, text.decode(errors="replace")
                    raise RuntimeError(
                        f"{self.root} answered {path} with a page ({status}) and not as Airflow's API does.{moved} "
                        f"A proxy or a login page stands in front of it, or the address is another site's."
                    ) from None

        def name() -> str:
            """The same for all attempts of this step in this run, and for no other."""
            step = current_step()
            if step is None or step.run_id == "by-hand":  # see `flowyml.runtime.cli`
                return f"{prefix}-{uuid.uuid4().hex[:12]}"
            facts = json.dumps([step.pipeline, step.run_id, step.step, conf, inputs], sort_keys=True)
            return f"{prefix}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"

        def begun() -> str:
            """The run id of the DAG's run: one that is under way or went well, else a new one."""
            ours = name()
            for number in itertools.count(1):
                run_id = ours if number == 1 else f"{ours}-{number}"
                state = airflow.state(run_id)
                if state is None:
                    if airflow.asked("GET", airflow.dag)["is_paused"]:
                        raise RuntimeError(
                            f"The DAG {dag_id!r} is paused in Airflow, so its run would wait for ever. Unpause it."
                        )
                    airflow.trigger(run_id)
                if state != "failed":
                    return run_id
            raise AssertionError("there is always another number")

        def waited(run_id: str) -> str:
            """How the DAG's run ended. A signal that ends this step fails it."""
            before = None
            with suppress(ValueError):  # signals go to the main thread only
                before = signal.signal(signal.SIGTERM, interrupt)
            try:
                while (state := airflow.state(run_id)) not in ("success", "failed", None):
                    time.sleep(poll_interval)
            except KeyboardInterrupt:
                airflow.fail(run_id)
                raise
            finally:
                if before is not None:
                    signal.signal(signal.SIGTERM, before)
            return state or "deleted"

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt("The step was told to end.")

        airflow = Airflow()
        run_id = begun()
        page = airflow.page(run_id)
        print(f"Airflow runs {dag_id}: {page}", flush=True)
        if (state := waited(run_id)) != "success":
            raise RuntimeError(f"The DAG {dag_id!r} {'failed' if state == 'failed' else 'lost its run'}: see {page}")
        return {"dag_id": dag_id, "run_id": run_id, "state": state, "url": page}

    return run_external_dag
