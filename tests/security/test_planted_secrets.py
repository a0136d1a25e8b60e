"""Known secrets are put wherever a secret can be; then all that FlowyML writes, sends and shows is searched for them.

Not searched: the one address that a credential is for, and a run's own record of its parameters, which its owner reads.
"""

from __future__ import annotations

import base64
import bz2
import io
import logging
import os
import re
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.credentials import Auth, AuthLike
from flowyml.core.errors import ConfigurationError, FlowymlError
from flowyml.core.observability import OtlpMetricsCollector, PrometheusMetricsCollector, set_metrics_collector
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.local import LocalOrchestrator
from flowyml.orchestrators.targets import resolve
from flowyml.plan.bundle import Bundle
from flowyml_prefect.deployer import Target
from tests.engines.web import Recorded, Reply, web
from tests.unit.commands import command, flowyml
from tests.waiting import wait_for_processes

ENGINES = ("airflow", "kubeflow", "prefect")
IN_FILE, IN_TARGET, IN_ENVIRONMENT = "planted-in-dotenv-11", "planted-in-target-12", "planted-in-environment-13"
AS_PARAMETER, AS_TOKEN, AS_PASSWORD, AS_COOKIE = (
    f"planted-as-parameter-{os.getpid()}", "planted-as-token-15", "planted-as-password-16", "planted-as-cookie-17",
)  # fmt: skip
IN_STORE = f"planted-in-store-{os.getpid()}"  # of its URL; command lines may not hold it
NAMES = {
    "AWS_SECRET_ACCESS_KEY": IN_ENVIRONMENT,
    "FLOWYML_AIRFLOW_TOKEN": IN_ENVIRONMENT,
    "FLOWYML_ORCHESTRATORS__OTHER__PASSWORD": IN_ENVIRONMENT,
    "MY_DATABASE_PASSWORD": IN_ENVIRONMENT,
}
PIPELINE = """
import os
from pathlib import Path
from flowyml import Pipeline, context, step

@step(cache=True)
def stored() -> bytes:
    return b"in the store"

@step
def commands(secret: str, stored: bytes) -> list[str]:
    assert os.environ["MY_DATABASE_PASSWORD"]
    folders = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for folder in folders:
        try:
            found.append((folder / "cmdline").read_bytes().decode("utf-8", "replace"))
        except OSError:
            pass
    assert any("python" in command for command in found)
    return found

planted = Pipeline("planted", context=context(secret="nothing"), include=["**/*"]).add_step(stored).add_step(commands)
"""
BROKEN = re.compile(rb'(?<=[A-Za-z0-9+/]{100})(?:","|"?\n +- "?| {600})(?=[A-Za-z0-9+/]{40})')
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")


def found(data: bytes | str, *secrets: str) -> list[str]:
    """Which secrets stand in some data: as they are, in base64, deflated, or in an archive in it."""
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    places = list(unpacked(raw))
    return [secret for secret in secrets or everything() if any(secret.encode() in place for place in places)]


def everything() -> tuple[str, ...]:
    return IN_FILE, IN_TARGET, IN_ENVIRONMENT, AS_PARAMETER, AS_TOKEN, AS_PASSWORD, AS_COOKIE


def unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    yield data
    if depth == 4:
        return
    # Kubeflow's files break long texts, and the word "python3" in them.
    for match in BASE64.finditer(BROKEN.sub(b"", data.replace(b"python 3", b"python3"))):
        text = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        with suppress(ValueError):
            yield from unpacked(base64.b64decode(text + b"=" * (-len(text) % 4)), depth + 1)
    if data[:1] == b"\x78":
        with suppress(zlib.error):
            yield from unpacked(zlib.decompress(data), depth + 1)
    if data[:3] == b"BZh":
        yield from unpacked(bz2.BZ2Decompressor().decompress(data), depth + 1)
    if b"PK\x03\x04" in data:
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name), depth + 1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as people have them, with secrets beside the code, in the settings and in the environment."""
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    (folder / ".env").write_text(f"PASSWORD={IN_FILE}")
    (folder / ".git" / "config").write_text(f"url = https://me:{IN_FILE}@host/project")
    (folder / "data.csv").write_text("1,2")
    (folder / "planted.py").write_text(PIPELINE)
    lines = "".join(f'[orchestrators.{name}]\nengine = "{name}"\ntoken = "{IN_TARGET}"\n' for name in ENGINES)
    (folder / "flowyml.toml").write_text(lines)
    monkeypatch.chdir(folder)
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    return folder


def test_no_compiled_file_holds_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the command of a pod or a task, which stands in these files."""
    monkeypatch.setenv("FLOWYML_ARTIFACTS", f"s3://key:{IN_ENVIRONMENT}@bucket/x")
    for engine in (*ENGINES, "bundle", "plan"):
        made = project.parent / "made" / engine
        made.mkdir(parents=True)
        words = ("bundle", "planted.py", "-o", str(made)) if engine == "bundle" else (
            "compile", "planted.py", "--to", engine, "-o", str(made / "main"))  # fmt: skip
        done = flowyml(*words)
        assert done.code == 0, done.err
        files = [path for path in made.rglob("*") if path.is_file()]
        reached = any(found(path.read_bytes(), "MY_DATABASE_PASSWORD") for path in files)
        assert reached or engine == "plan", "the search must reach the code"
        for path in files:
            assert not found(path.read_bytes()), path
        assert not found(done.out + done.err)


STORES: Mapping[str, Callable[[str], object]] = {
    "airflow": lambda url: compiled("airflow", artifacts=url),
    "airflow's option": lambda url: compiled("airflow", of_pipeline={"artifacts": url}),
    "kubeflow": lambda url: compiled("kubeflow", url="http://127.0.0.1:9", artifacts=url),
    "kubeflow's option": lambda url: compiled("kubeflow", of_pipeline={"bundle_store": url}),
    "a variable on kubeflow": lambda url: compiled("kubeflow", of_pipeline={"env": {"FLOWYML_ARTIFACTS": url}}),
    "prefect": lambda url: compiled("prefect", url="http://127.0.0.1:9", artifacts=url),
    "environment on prefect": lambda url: Target("pool", None).environment,
}


def compiled(engine: str, *, of_pipeline: Any = None, **options: Any) -> object:
    """What an engine would be given."""

    @step
    def one() -> int:
        return 1

    pipeline = Pipeline("stored", **({engine: of_pipeline} if of_pipeline else {})).add_step(one)
    return resolve(engine, **options).compile_pipeline(pipeline)


@pytest.mark.parametrize("place", STORES)
def test_a_store_with_credentials_in_its_url_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://key:{AS_PASSWORD}@bucket/x"
    if place == "environment on prefect":
        monkeypatch.setenv("FLOWYML_ARTIFACTS", url)
    with pytest.raises(ConfigurationError, match="contains credentials") as refused:
        STORES[place](url)
    assert not found("".join(traceback.format_exception(refused.value)))


AUTHS: Mapping[str, list[AuthLike]] = {
    "airflow": [AS_TOKEN, ("ada", AS_PASSWORD)],
    "kubeflow": [AS_TOKEN, Auth(cookies=f"session={AS_COOKIE}")],
    "prefect": [AS_TOKEN, ("ada", AS_PASSWORD)],
}
ONCE = OrchestratorRetryPolicy(max_attempts=1)
ANSWERS = {
    "silence": None,
    "refusal": Reply(401, b'{"detail": "no"}'),
    "page": Reply(200, b"<title>Sign in</title>", media_type="text/html"),
    "trouble": Reply(500, b"<h1>oh</h1>", media_type="text/html"),
    "redirect": Reply(302, b"", {"Location": f"https://me:{AS_PASSWORD}@elsewhere/login?token={AS_TOKEN}"}),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_no_error_repr_or_log_shows_one(engine: str, answer: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reply = ANSWERS[answer]
    with web(lambda _: reply or Reply()) as server:
        bare = server.url if reply else "http://127.0.0.1:9"
        shown = ""
        for auth in AUTHS[engine]:
            shown += tried(resolve(engine, url=bare, auth=auth, timeout=5, retry_policy=ONCE))
        url = bare.replace("//", f"//ada:{AS_PASSWORD}@") + f"/?key={AS_TOKEN}"
        shown += tried(resolve(engine, url=url, retry_policy=ONCE))
    assert "127.0.0.1" in shown
    assert not found(shown)
    # What the server sent, the log of httpcore shows as it came.
    own = [record for record in caplog.records if not (answer == "redirect" and record.name.startswith("httpcore"))]
    assert not found("\n".join(map(repr, map(logging.LogRecord.getMessage, own))))


def tried(orchestrator: Orchestrator) -> str:
    """All that an orchestrator shows of itself while nothing works."""
    shown = repr(orchestrator) + repr(vars(orchestrator))
    for call in (orchestrator.runs, lambda: orchestrator.get_run("x"), orchestrator.schedules):
        try:
            call()
        except (FlowymlError, LookupError) as error:
            shown += "".join(traceback.format_exception(error)) + repr(error)
    health = orchestrator.health()
    assert not health.reachable
    shown += repr(health)
    if close := getattr(orchestrator, "close", None):
        close()
    return shown


def test_a_command_shows_none_of_what_it_was_given(project: Path) -> None:
    url = f"http://ada:{AS_PASSWORD}@127.0.0.1:9/?token={AS_TOKEN}"
    for words in (
        ("runs", "--on", url), ("run", "planted.py", "--on", url, "-p", f"secret={AS_PARAMETER}"),
        ("backends", "show", url), ("deploy", "planted.py", "--on", url), ("status", "x", "--on", url),
    ):  # fmt: skip
        done = flowyml(*words)
        assert done.code, words
        assert "127.0.0.1" in done.err, words
        assert not found(done.out + done.err), words


WHERE: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "local": ((), {"FLOWYML_ORCHESTRATORS__LOCAL__WORKERS": "processes"}),
    "local without forks": ((), {"FLOWYML_ORCHESTRATORS__LOCAL__WORKERS": "processes", "FLOWYML_FORK": "0"}),
    "local, detached": (("--detach",), {}),
    "KFP's local runner": (("--on", "kubeflow-local"), {}),
}


@pytest.mark.parametrize("where", WHERE)
def test_no_command_line_of_a_run_holds_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """All users of a machine see those. The URL of the store is a folder's here, which no login opens, so that the run
    works; FlowyML does not know that."""
    options, environment = WHERE[where]
    if "kubeflow-local" in options:
        pytest.importorskip("kfp")
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLOWYML_ARTIFACTS", f"file://{tmp_path}/{IN_STORE}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = command("run", "planted.py", "-p", f"secret={AS_PARAMETER}", "--run-id", "listed", "--json", *options)
    assert done.code == 0, done.err
    if "--detach" in options:
        assert flowyml("watch", "listed").code == 0
        listed = flowyml("outputs", "listed", "--json").json
    else:
        listed = done.json["outputs"]
    assert any((tmp_path / IN_STORE).rglob("*")), "the store is used"
    assert not found(commands_of_flowyml(listed["commands"]), *everything(), IN_STORE)


def commands_of_flowyml(listed: Sequence[str]) -> str:
    """All but the user's own command, here a process of its own."""
    return "\n".join(line for line in listed if "-p\0secret=" not in line)


def test_a_local_run_leaves_none_anywhere(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FLOWYML_HOME", str(home))
    words = ("run", "planted.py", "-p", f"secret={AS_PARAMETER}", "--run-id")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__LOCAL__WORKERS", "processes")
    done = command(*words, "local-1", "--json")
    assert done.code == 0, done.err
    assert not found(done.err)
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__LOCAL__WORKERS", "threads")
    submitted = flowyml(*words, "local-2", "--detach", "--json")
    assert submitted.code == 0, submitted.err
    watched = flowyml("watch", "local-2")
    assert watched.code == 0, watched.err
    shown = [watched, flowyml("outputs", "local-2", "--json"), flowyml("logs", "local-2")]
    assert not found(submitted.err + "".join(each.out + each.err for each in shown))
    wait_for_processes(home / "runs.db")
    for path in home.rglob("*"):
        if path.is_file():
            others = set(everything()) - {AS_PARAMETER}
            assert not found(path.read_bytes(), *others), path


@pytest.mark.parametrize("kind", [PrometheusMetricsCollector, OtlpMetricsCollector])
def test_metrics_hold_none(project: Path, kind: type[PrometheusMetricsCollector | OtlpMetricsCollector]) -> None:
    def accept(request: Recorded) -> Reply:
        return Reply(200, b"")

    @step
    def one(secret: str) -> int:
        return len(secret)

    with web(accept) as gateway:
        collector = kind(gateway.url.replace("//", f"//ada:{AS_PASSWORD}@"), job_name="planted")
        assert not found(repr(collector))
        pipeline = Pipeline("measured", context=context(secret="")).add_step(one)
        set_metrics_collector(collector)
        try:
            assert pipeline.run({"secret": AS_PARAMETER}, on=LocalOrchestrator()).success
        finally:
            set_metrics_collector(None)
    pushed = [request for request in gateway.requests if request.body]
    assert pushed
    for request in pushed:
        assert not found(request.body)
        assert not found(request.path)


def test_the_embedded_prefect_keeps_none(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prefect")
    home = tmp_path / "home"
    monkeypatch.setenv("FLOWYML_HOME", str(home))
    monkeypatch.setenv("FLOWYML_ARTIFACTS", f"file://{tmp_path}/{IN_STORE}")
    (project / "flowyml.toml").unlink()
    try:
        done = command("run", "planted.py", "--on", "prefect", "-p", f"secret={AS_PARAMETER}", "--json")
        assert done.code == 0, done.err
        password = (home / "prefect" / "password").read_text().strip().partition(":")[2]
        listed = commands_of_flowyml(done.json["outputs"]["commands"])
        deployed = flowyml("deploy", "planted.py", "--on", "prefect")
        assert deployed.code == 0, deployed.err
        assert not found(listed, *everything(), password, IN_STORE)
        assert not found(f"{done.err}\n{deployed.out}\n{deployed.err}", *everything(), password)
        others = set(everything()) - {AS_PARAMETER}
        for path in home.rglob("*"):
            with suppress(FileNotFoundError):  # the server is at work
                if path.is_file() and path.name != "password":
                    assert not found(path.read_bytes(), *others, password), path
    finally:
        flowyml("backends", "stop", "prefect")


def test_a_bundle_is_read_as_it_was_written(project: Path) -> None:
    """What the search above reads is what workers get."""
    done = flowyml("bundle", "planted.py", "-o", str(project.parent / "made"), "--json")
    bundle = Bundle.read(Path(done.json["path"]))
    assert {name for name in bundle.files if name.startswith("code/")} == {"code/planted.py", "code/data.csv"}
