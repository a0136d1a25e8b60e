"""RemoteOrchestrator: which engine lives at a URL, asked of a real server on this machine."""

from __future__ import annotations

import copy
import inspect
import pickle
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.capabilities import Capabilities
from flowyml.core.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineUnreachableError,
    MissingExtraError,
    OrchestratorNotFoundError,
    PluginError,
    UnsupportedFeatureError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Health, Orchestrator
from flowyml.orchestrators.probe import Site
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.plan.bundle import Bundle
from flowyml.plan.marks import marked
from tests.engines.processes import free_port
from tests.engines.web import Recorded, Reply, authority, web


class Pages:
    """What the server of a test answers, and what it was asked."""

    asked: list[str] = []  # noqa: RUF012  # one list for all requests of a test
    pages: dict[str, tuple[int, str, bytes]] = {}  # noqa: RUF012  # as above

    @classmethod
    def answer(cls, request: Recorded) -> Reply:
        cls.asked.append(request.path)
        status, media_type, body = cls.pages.get(request.path, (404, "text/html", b"<h1>no</h1>"))
        return Reply(status, body, {"Location": body.decode()} if 300 <= status < 400 else {}, media_type)


class Toy(Orchestrator):
    name = "toy"
    capabilities = Capabilities("toy", {})

    def __init__(self, url: str, *, pool: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.url, self.pool = url, pool

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        return site.get("/toy").json() == {"engine": "toy"}

    def health(self) -> Health:
        return Health(reachable=True, version="1", url=self.url)

    def spin(self, times: int) -> list[int]:
        return list(range(times))

    def cancel(self, job_id: str) -> bool:
        return job_id == "running"

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return {"toy.txt": bundle.plan.name.encode()}


class Needy(Toy):
    name = "needy"
    engine_package = "needy_client_that_nobody_has"
    extra = "needy"

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        return site.get("/needy").status == 200


class Broken(Toy):
    @classmethod
    def recognizes(cls, site: Site) -> bool:
        raise ZeroDivisionError("my own fault")


for toy in (Toy, Needy, Broken):
    toy.__abstractmethods__ = frozenset()


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Pages, "asked", [])
    monkeypatch.setattr(Pages, "pages", {})
    monkeypatch.setattr(registry, "_registered", {"broken": Broken, "needy": Needy, "toy": Toy})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web(Pages.answer) as server:
        yield server.url


@pytest.fixture
def toy_url(url: str) -> str:
    Pages.pages["/toy"] = (200, "application/json", b'{"engine": "toy"}')
    return url


def test_it_compiles_for_the_engine(toy_url: str) -> None:
    pipeline = Pipeline("compiled").add_step(step(name="one")(lambda: 1))
    assert RemoteOrchestrator(toy_url).compile_pipeline(pipeline) == {"toy.txt": marked(b"compiled", "toy.txt")}
    assert RemoteOrchestrator(toy_url).compile_files(pipeline.bundle()) == {"toy.txt": b"compiled"}
    late = Pipeline("late", timeout=5).add_step(step(name="one")(lambda: 1))
    with pytest.raises(UnsupportedFeatureError, match="asks for timeout=5"):
        RemoteOrchestrator(toy_url).compile_pipeline(late)


def test_it_finds_the_engine_once_when_it_is_needed_and_becomes_its_adapter(toy_url: str) -> None:
    policy = OrchestratorRetryPolicy(max_attempts=4)
    remote = RemoteOrchestrator(url=toy_url + "/", pool="gpu", retry_policy=policy)
    assert Pages.asked == []
    assert (remote.name, remote.name) == ("toy", "toy")
    assert Pages.asked.count("/toy") == 1
    assert remote.capabilities is Toy.capabilities
    assert isinstance(remote.adapter, Toy)
    assert (remote.adapter.pool, remote.adapter.retry_policy) == ("gpu", policy)
    assert remote.cancel("running")
    assert not remote.cancel("ended")
    assert remote.health().reachable


def test_what_only_this_engine_can_do_is_there_too(toy_url: str) -> None:
    remote = RemoteOrchestrator(toy_url)
    with pytest.raises(AttributeError, match="'_repr_html_'"):
        _ = remote._repr_html_
    assert Pages.asked == []
    assert remote.spin(2) == [0, 1]
    with pytest.raises(AttributeError, match="'RemoteOrchestrator' object has no attribute 'spim'"):
        remote.spim(2)
    assert copy.copy(remote).engine is None


def test_what_an_adapter_overrides_is_forwarded(toy_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteOrchestrator(toy_url)
    composed = {"get_run_status", "retry", "schedule_pipeline", "step_outputs", "deploy_pipeline", "prune"}
    methods = {name for name, item in vars(Orchestrator).items() if inspect.isfunction(item) and name[0] != "_"}
    assert methods - vars(RemoteOrchestrator).keys() == composed
    for name in methods - composed - {"run_pipeline", "submit", "health", "cancel"}:
        setattr(remote.adapter, name, lambda *args, **options: (args, options))
        assert getattr(remote, name)(1, two=2) == ((1,), {"two": 2})
    for part in ("reader", "deployer", "scheduler", "artifact_place"):
        monkeypatch.setattr(Toy, part, part)
        assert getattr(remote, part) == part


def test_engine_skips_the_question(url: str) -> None:
    assert RemoteOrchestrator(url, engine="toy").name == "toy"
    assert Pages.asked == []


def test_an_engine_whose_extra_is_missing_is_recognized_all_the_same(url: str) -> None:
    Pages.pages["/needy"] = (200, "text/plain", b"")
    with pytest.raises(MissingExtraError, match=rf"'needy' answers at {url}, .*pip install 'flowyml\[needy\]'"):
        _ = RemoteOrchestrator(url).name
    with pytest.raises(MissingExtraError, match=r"'needy' needs an extra .*pip install 'flowyml\[needy\]'"):
        _ = RemoteOrchestrator(url, engine="needy").name


def test_an_unknown_server_is_reported_with_all_that_was_seen(url: str) -> None:
    with pytest.raises(OrchestratorNotFoundError, match=f"No known engine answers at {url}") as caught:
        _ = RemoteOrchestrator(url).name
    message = str(caught.value)
    assert f"{url}/toy answered 404 text/html" in message
    assert f"{url}/needy answered 404 text/html" in message
    assert "broken could not be checked: my own fault" in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    Pages.pages["/toy"] = (200, "application/json", b"{not json")
    with pytest.raises(OrchestratorNotFoundError):
        _ = RemoteOrchestrator(url).name


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_login_is_reported_with_how_to_give_one(url: str, status: int) -> None:
    Pages.pages["/"] = (200, "text/html", b"the UI, which everybody may see")
    Pages.pages["/toy"] = (status, "application/json", b"{}")
    remote = RemoteOrchestrator(url.replace("//", "//me:hunter2@") + "?token=hunter2")
    with pytest.raises(AuthenticationError, match=f"^{url} requires credentials") as caught:
        _ = remote.name
    message = str(caught.value)
    assert f"{url}/toy answered {status} application/json" in message
    assert f"{url}/needy answered 404 text/html" in message
    assert "RemoteOrchestrator(url, engine=…" in message
    assert "hunter2" not in message
    health = remote.health()
    assert (health.reachable, health.detail) == (False, message)


def test_a_login_page_is_reported_with_its_address(url: str) -> None:
    Pages.pages["/toy"] = (302, "text/html", b"/login?state=hunter2")
    Pages.pages["/login?state=hunter2"] = (200, "text/html", b"<h1>Sign in</h1>")
    with pytest.raises(OrchestratorNotFoundError) as caught:
        _ = RemoteOrchestrator(url).name
    assert f"{url}/toy answered 200 text/html at {url}/login, to which it redirects\n" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_redirect_to_a_dead_address_is_reported_as_one(url: str) -> None:
    nowhere = f"127.0.0.1:{free_port()}/login"
    Pages.pages["/"] = (302, "text/html", f"http://{nowhere}?state=hunter2".encode())
    with pytest.raises(
        EngineUnreachableError, match=f"^Nothing answers at http://{nowhere}, to which {url}/ redirects: .*refused"
    ) as caught:
        _ = RemoteOrchestrator(url).name
    assert "hunter2" not in str(caught.value)


def test_a_plugin_that_cannot_be_loaded_does_not_hide_the_others(toy_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load

    def failing(name: str) -> registry.Factory:
        if name == "needy":
            raise PluginError("broken plugin")
        return load(name)

    monkeypatch.setattr(registry, "load", failing)
    assert RemoteOrchestrator(toy_url).name == "toy"


def test_silence_is_unreachable_and_health_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineUnreachableError, match=f"Nothing answers at {url}/: .*refused.* Is the server running"):
        _ = RemoteOrchestrator(url).name
    health = RemoteOrchestrator(url).health()
    assert not health.reachable
    assert "refused" in health.detail


def test_a_server_that_never_answers_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = Site(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        with pytest.raises(EngineUnreachableError, match="timed out"):
            site.get("/")


@pytest.mark.parametrize("url", ["server:8000", "ftp://server", "http://", "", 7, None, "http://a:b", "http://[::1"])
def test_invalid_urls_are_refused_at_once(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="not the address of a server"):
        RemoteOrchestrator(url)


def test_who_lives_at_a_url_is_asked_as_patiently_as_all_else(toy_url: str) -> None:
    """The server comes up while the policy still has retries left."""
    port = free_port()
    patient = OrchestratorRetryPolicy(max_attempts=1000, initial_delay_seconds=0.1, backoff_multiplier=1)
    with pytest.raises(EngineUnreachableError):
        _ = RemoteOrchestrator(f"http://127.0.0.1:{port}").name
    with ExitStack() as late:
        timer = threading.Timer(0.3, lambda: late.enter_context(web(Pages.answer, port=port)))
        timer.start()
        assert RemoteOrchestrator(f"http://127.0.0.1:{port}", retry_policy=patient).name == "toy"
        timer.join()


@pytest.mark.parametrize("status", [429, 503])
def test_a_proxy_that_cannot_reach_the_engine_is_asked_again(toy_url: str, status: int) -> None:
    engine = Pages.pages["/toy"]
    busy = (status, "text/html", b"<h1>Service Unavailable</h1>")
    Pages.pages.update({"/": busy, "/toy": busy})
    with pytest.raises(EngineUnreachableError, match="is busy, or a proxy there cannot reach the engine") as caught:
        _ = RemoteOrchestrator(toy_url).name
    assert f"{toy_url}/toy answered {status} text/html" in str(caught.value)
    assert not RemoteOrchestrator(toy_url).health().reachable
    timer = threading.Timer(0.3, Pages.pages.update, [{"/toy": engine}])
    timer.start()
    patient = OrchestratorRetryPolicy(max_attempts=1000, initial_delay_seconds=0.1, backoff_multiplier=1)
    assert RemoteOrchestrator(toy_url, retry_policy=patient).name == "toy"
    timer.join()


def test_what_tls_refuses_is_asked_once(tmp_path: Path) -> None:
    patient = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=3600)
    with (
        web(lambda _: Reply(), authority(tmp_path).server()) as server,
        pytest.raises(EngineUnreachableError, match=r"TLS .* fails"),
    ):
        _ = RemoteOrchestrator(server.url, retry_policy=patient).name
