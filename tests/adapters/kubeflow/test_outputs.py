"""Outputs that stand in KFP's own store of artifacts, which a desk often cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml_kubeflow.client import Client
from flowyml_kubeflow.connection import Connection
from flowyml_kubeflow.ui_store import UiStore
from tests.engines.kubeflow_calls import OVER_THE_API, run_id

pytestmark = OVER_THE_API
RUN = "6a7c5bf0-24a0-4a9d-8d36-8c2a5e3e1f10"


@step
def large() -> bytes:
    return b"x" * 300_000


def submitted(kfp_api: Any, store: str = "", **options: Any) -> Any:
    orchestrator = kfp_api.orchestrator(**options)
    pipeline = Pipeline("large", kubeflow={"bundle_store": store} if store else {}).add_step(large)
    handle = orchestrator.run_pipeline(pipeline, run_id("large"))
    return handle.wait_for_completion(2400, 0.5)


@pytest.mark.parametrize("users", [{}, {"ours": {"team-a"}}], ids=["one user", "several users"])
def test_a_large_output_comes_through_ml_pipeline_ui(kfp_api: Any, fake: Any, users: dict[str, set[str]]) -> None:
    fake.is_ui = True
    fake.users.update(users)
    handle = submitted(kfp_api, **({"auth": "ours", "namespace": "team-a"} if users else {}))
    assert handle.outputs["large"] == b"x" * 300_000
    assert any(path.startswith("/artifacts/minio/mlpipeline/v2/artifacts/large/") for _, path in fake.calls)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"y" * 300_000, "SHA-256 differs"), (b"x" * 9_000_000, "larger than what was stored"), (b"x", "has 1 bytes")],
    ids=["other", "longer", "shorter"],
)
def test_one_that_was_changed_is_refused(kfp_api: Any, fake: Any, content: bytes, message: str) -> None:
    fake.is_ui = True
    handle = submitted(kfp_api)
    (path,) = [path for path in (fake.folder / f"run-{handle.job_id}").rglob("*large*") if path.is_file()]
    path.write_bytes(content)
    with pytest.raises(LookupError, match=message):
        handle.outputs["large"]


def test_kfps_api_alone_gives_none_and_says_what_does(kfp_api: Any, tmp_path: Path) -> None:
    if kfp_api.state is None:
        pytest.skip("where a real server's URL leads is unknown")
    handle = submitted(kfp_api, tmp_path.as_uri(), artifacts=None)
    with pytest.raises(LookupError, match=r"is in KFP's own store, at \S+\. Set url=… to KFP's UI, which can read it"):
        handle.outputs["large"]


@pytest.mark.parametrize(
    ("url", "is_held"),
    [
        (f"minio://mlpipeline/v2/artifacts/large/{RUN}/large/1/data", True),
        (f"s3://bucket/a/{RUN}/data", True),
        (f"gs://bucket/a/{RUN}/data", True),
        ("minio://mlpipeline/v2/artifacts/large/another-run/large/data", False),
        (f"minio://mlpipeline/{RUN}", False),
        (f"minio://mlpipeline/a/{RUN}/../other/data", False),
        (f"minio://mlpipeline/a/{RUN}//data", False),
        (f"minio://user:secret@mlpipeline/a/{RUN}/data", False),
        (f"minio://mlpipeline/a/{RUN}/data?namespace=other", False),
        (f"http://169.254.169.254/{RUN}/data", False),
        (f"file:///etc/{RUN}/passwd", False),
        (f"/etc/{RUN}/passwd", False),
    ],
)
def test_what_a_run_did_not_write_is_not_asked_for(url: str, is_held: bool) -> None:
    """A log, in which the reference stands, may be forged by who can write to it."""
    assert UiStore(Client(Connection("http://kfp.internal")), RUN).holds(url) is is_held
