"""A step that runs a DAG which exists already, from any pipeline on any engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
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
    after: Sequence[str] | str = (),
    retry: int | OrchestratorRetryPolicy | None = None,
    timeout: float | None = None,
    resources: ResourceRequirements | None = None,
) -> Step[..., dict[str, Any]]:
    """A step that triggers an existing Airflow DAG, waits for its end, and fails when it fails.

    ``conf`` is handed to the DAG; ``inputs`` names outputs of other steps, or parameters, that go into it as well. The
    step's output, named like the step, tells ``dag_id``, ``run_id``, ``state`` and ``url`` of the DAG's run.

    It runs on a worker that has nothing but Python. ``FLOWYML_AIRFLOW_URL`` says there which Airflow is meant, unless
    ``url`` does, and ``FLOWYML_AIRFLOW_USERNAME`` and ``_PASSWORD``, or ``_TOKEN``, who asks: no credential is in the
    pipeline. A DAG that is paused is refused, since its run would wait for ever. ``poll_interval`` is in seconds.

    >>> from flowyml import Pipeline
    >>> report = external_dag("nightly_report", conf={"day": "monday"})
    >>> Pipeline("week").add_step(report).compile().steps[0].outputs
    ('nightly_report',)
    """
    from flowyml import step

    made: Callable[..., Any] = step(
        name=name or dag_id, inputs=list(inputs), outputs=[name or dag_id], after=after, retry=retry, timeout=timeout,
        resources=resources, description=f"Runs the Airflow DAG {dag_id}, waits for it and fails with it.",
    )  # fmt: skip
    given: Step[..., dict[str, Any]] = made(_waiting(dag_id, dict(conf or {}), url, poll_interval))
    return given


def _waiting(dag_id: str, conf: dict[str, Any], url: str | None, poll_interval: float) -> Callable[..., dict[str, Any]]:  # noqa: C901  # no worker has this module
    """The function of the step. All that it uses is inside it, so that it travels by value to workers."""
    prefix = f"flowyml-{slug(dag_id, max_length=60)}"

    def run_external_dag(**inputs: Any) -> dict[str, Any]:  # noqa: C901  # as above
        import base64
        import json
        import os
        import time
        import uuid
        from urllib.error import HTTPError, URLError
        from urllib.parse import quote
        from urllib.request import Request, urlopen

        def setting(name: str) -> str | None:
            return os.environ.get(f"FLOWYML_AIRFLOW_{name}")

        root = (url or setting("URL") or "").rstrip("/")
        if not root:
            raise LookupError("Which Airflow? Set FLOWYML_AIRFLOW_URL on the worker, or give external_dag(…, url=…).")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}

        def answer(method: str, path: str, body: Any = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            with urlopen(Request(root + path, data, headers, method=method), timeout=30) as response:
                return json.load(response)

        def patient(method: str, path: str, body: Any = None) -> Any:
            """Only silence and a busy server are worth another try."""
            for pause in (1, 2, 4, 8, 15, 30, 0):
                try:
                    return answer(method, path, body)
                except HTTPError as error:
                    if error.code < 500 or not pause:
                        detail = error.read(300).decode(errors="replace")
                        raise RuntimeError(f"Airflow at {root} answered {error.code} to {path}: {detail}") from None
                except (URLError, OSError, ValueError) as error:
                    if not pause:
                        raise ConnectionError(f"Airflow at {root} does not answer: {error}") from None
                time.sleep(pause)
            return None

        def version() -> str:
            try:
                return "v2" if answer("GET", "/api/v2/version") else ""
            except HTTPError as error:
                if error.code != 404:
                    raise
                return "v1"

        def log_in() -> None:
            username, password, token = setting("USERNAME"), setting("PASSWORD"), setting("TOKEN")
            if api == "v1" and username:
                pair = base64.b64encode(f"{username}:{password}".encode()).decode()
                headers["Authorization"] = f"Basic {pair}"
                return
            if username and password:
                token = patient("POST", "/auth/token", {"username": username, "password": password})["access_token"]
            if token:
                headers["Authorization"] = f"Bearer {token}"

        def state_of(path: str) -> str:
            """A token may expire while the DAG runs."""
            try:
                return str(patient("GET", path)["state"])
            except RuntimeError as error:
                if " 401 " not in str(error) and " 403 " not in str(error):
                    raise
                log_in()
                return str(patient("GET", path)["state"])

        def trigger(dag: str, run_id: str) -> None:
            body: dict[str, Any] = {"dag_run_id": run_id, "conf": {**conf, **inputs}}
            if api == "v2":
                body["logical_date"] = None
            try:
                patient("POST", f"{dag}/dagRuns", body)
            except RuntimeError as error:
                if " 409 " not in str(error):  # 409: an earlier try got through
                    raise

        api = version()
        log_in()
        dag, run_id = f"/api/{api}/dags/{quote(dag_id, safe='')}", f"{prefix}-{uuid.uuid4().hex[:12]}"
        if patient("GET", dag)["is_paused"]:
            raise RuntimeError(
                f"The DAG {dag_id!r} is paused in Airflow, so its run would wait for ever. Unpause it there."
            )
        trigger(dag, run_id)
        page = f"{root}/dags/{quote(dag_id, safe='')}/runs/{run_id}"
        print(f"Airflow runs {dag_id}: {page}", flush=True)
        while (state := state_of(f"{dag}/dagRuns/{run_id}")) not in ("success", "failed"):
            time.sleep(poll_interval)
        if state == "failed":
            raise RuntimeError(f"The DAG {dag_id!r} failed: see {page}")
        return {"dag_id": dag_id, "run_id": run_id, "state": state, "url": page}

    return run_external_dag
