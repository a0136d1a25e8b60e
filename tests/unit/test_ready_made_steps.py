"""`flowyml.steps`, each for real: a shell, servers on 127.0.0.1, SQLite, files, and moto's fake of S3."""

from __future__ import annotations

import gc
import json
import socketserver
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from flowyml import pipeline
from flowyml.core.errors import ConfigurationError
from flowyml.steps import bash, copy_files, docker_run, email, http, move_files, sql, wait_for_file, wait_for_http
from tests.engines.s3 import fake_s3
from tests.engines.web import Recorded, Reply, Web, dripping, web
from tests.waiting import is_running, wait_until


def answer(request: Recorded) -> Reply:
    """Tells what it was asked; `/no` fails."""
    return Reply(404 if request.path.startswith("/no") else 200, f"you asked for {request.path}".encode())


@pytest.fixture
def server() -> Iterator[Web]:
    with web(answer) as running:
        yield running


def test_a_command_gives_its_last_line_and_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert bash("echo one; echo $WORD >&2", env={"WORD": "two; exit 9"}) == "two; exit 9"
    assert capsys.readouterr().out == "one\ntwo; exit 9\n"
    assert bash("true") == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo why; exit 3", "failed with exit code 3. It said:\nwhy"),
        ("false | cat", "failed with exit code 1."),
        ("kill -9 $$", "was ended by signal 9"),
    ],
)
def test_a_command_that_fails_says_why(command: str, words: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        bash(command)
    assert words in str(raised.value)


@pytest.mark.processes
def test_what_a_command_started_ends_with_a_step_that_is_late(tmp_path: Path) -> None:
    @pipeline
    def late() -> None:
        bash.options(timeout=3)(f"sleep 600 & echo $! > {tmp_path}/pid; sleep 600")

    result = late.run()
    while not (tmp_path / "pid").exists():  # the machine took as long to begin
        result = late.run()
    assert "ran longer than its timeout of 3 s" in str(result.error)
    process = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_running(process))


def test_steps_take_secrets_and_values_in_a_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWYML_SECRET_TOOL_TOKEN", "s3cret-token")
    ask = bash.options(name="ask", secrets={"TOOL_TOKEN": "tool/token"})

    @pipeline
    def asking() -> Any:
        found = ask("echo ${#TOOL_TOKEN}; echo $TOOL_TOKEN > /dev/null")
        return bash.options(name="tell")('echo "$LENGTH"', env={"LENGTH": "3"}), found

    result = asking.run()
    result.raise_for_status()
    assert dict(result.outputs) == {"tell": "3", "ask": "12"}


def test_a_request_and_its_errors(server: Web) -> None:
    url, asked = server.url, server.requests
    assert http(f"{url}/rates", params={"day": "1 & 2"}, token="t0ken\n") == "you asked for /rates?day=1+%26+2"
    assert asked[0].headers["authorization"] == "Bearer t0ken", "a token from a file may end in a line break"
    http(f"{url}/rates", method="POST", json={"a": [1]})
    assert (json.loads(asked[1].body), asked[1].headers["content-type"]) == ({"a": [1]}, "application/json")
    with pytest.raises(RuntimeError, match=r"GET .*/no\?key=…: 404 Not Found\. It said: you asked for /no"):
        http(f"{url}/no?key=secret")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1"):
        http("http://127.0.0.1:1/")
    with pytest.raises(ValueError, match="not both"):
        http(url, json=1, data="x")
    with pytest.raises(TypeError, match=r"the value of 'X-Tries' is of type int\. Give it as text"):
        http(url, headers={"X-Tries": 5})  # type: ignore[dict-item]  # wrong on purpose


def test_an_odd_answer_is_read_or_an_error_of_its_own() -> None:
    """With a character set of its own, less than it promised, or not in HTTP."""

    def odd(request: Recorded) -> Reply:
        if request.path == "/charset":
            return Reply(200, "größ".encode(), media_type="text/plain; charset=utf8mb4")
        return Reply(404 if request.path == "/no" else 200, "größ".encode(), {"Content-Length": "99"}, "text/plain")

    with web(odd) as server:
        assert http(f"{server.url}/charset") == "größ"
        for page in ("broken", "no"):
            with pytest.raises(ConnectionError, match=rf"GET .*/{page}: IncompleteRead"):
                http(f"{server.url}/{page}")
    with dripping(b"220 mail.example.org ready\r\n") as mail:
        with pytest.raises(ConnectionError, match=r"GET .*: 220 mail"):
            http(mail)
        with pytest.raises(TimeoutError):  # it goes on waiting
            wait_for_http(mail, poll_interval=0.02, patience=0.05)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"token": "t0ken\nX-Key: k3y"}, "token"),
        ({"token": "t0ken\u20ac"}, "token"),
        ({"headers": {"X-Key": "t0ken\n"}}, "'X-Key'"),
        ({"headers": {"X-Key": "t0ken\r\nHost: else"}}, "'X-Key'"),
        ({"headers": {"X-Key": "t0ken\u20ac"}}, "'X-Key'"),
        ({"headers": {"t0ken\n": "x"}}, "a name"),
        ({"url": "http://127.0.0.1:1/?key=t0ken and more"}, r"/\?key=…"),
        ({"url": "http://127.0.0.1:1/?key=t0ken\n"}, r"/\?key=…"),
        ({"url": "http://127.0.0.1:1/?key=t0ken\u20ac"}, r"/\?key=…"),
    ],
)
def test_what_cannot_be_sent_is_not_shown(asked: dict[str, Any], named: str) -> None:
    for ask in (http, wait_for_http):
        with pytest.raises(ValueError, match=named) as caught:
            ask(**{"url": "http://127.0.0.1:1/", **asked})
        shown = "".join(traceback.format_exception(caught.value))
        assert "t0ken" not in shown


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd"])
def test_a_request_opens_no_file(url: str) -> None:
    for ask in (http, wait_for_http):
        with pytest.raises(ConfigurationError, match="not the address of a server"):
            ask(url)


def test_a_redirect_to_another_host_takes_no_credentials_along(server: Web) -> None:
    away = Reply(302, b"", {"Location": f"{server.url}/there"})
    with web(lambda _: away) as first:
        assert http(f"{first.url}/away", token="t0ken", headers={"X-Key": "k3y"}) == "you asked for /there"
    assert first.requests[0].headers["authorization"] == "Bearer t0ken"
    assert not {"authorization", "x-key"} & server.requests[0].headers.keys()


@pytest.mark.parametrize("login", ["ada:12/34", "ada:/s3c", "ada:1?s3c", "ada:1#s3c", "ada:s@3c/ret", "ada:s3c/ret"])
def test_a_password_that_is_not_quoted_is_neither_looked_up_nor_shown(login: str) -> None:
    for ask in (http, wait_for_http):
        with pytest.raises(ConfigurationError) as caught:
            ask(f"http://{login}@127.0.0.1:1/x")
        assert "url='http://127.0.0.1:1/x'" in str(caught.value)


def test_a_redirect_with_a_login_leads_to_its_host(server: Web) -> None:
    away = Reply(302, b"", {"Location": server.url.replace("://", "://x:y@") + "/there"})
    with web(lambda _: away) as first:
        assert http(f"{first.url}/away", token="t0ken") == "you asked for /there"
    assert not {"authorization"} & server.requests[0].headers.keys()
    assert "x:y" not in server.everything


@pytest.mark.parametrize("method", ["GET\r\nX-Key: y", "GET /y HTTP/1.0\r\n\r\n", "GE T", "", "GÉT"])
def test_a_method_is_one_word(server: Web, method: str) -> None:
    with pytest.raises(ValueError, match="is not a method of HTTP"):
        http(f"{server.url}/x", method=method)
    assert server.requests == []


def test_a_page_is_waited_for(server: Web) -> None:
    assert wait_for_http(f"{server.url}/ready", contains="ready") == "you asked for /ready"
    for page, words in ((f"{server.url}/no", ""), (f"{server.url}/x", "ready"), ("http://127.0.0.1:1/", "")):
        with pytest.raises(TimeoutError, match=r"did not exist within 0\.05 s"):
            wait_for_http(page, contains=words, poll_interval=0.02, patience=0.05)


def test_statements_run_in_one_transaction(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sales.db"
    fill = ["create table sales (day text, sum real)", "insert into sales values (:day, :sum)"]
    assert sql(fill, url, {"day": "mon'day", "sum": 2.5}) == []
    assert sql("select * from sales where day = :day", url, {"day": "mon'day"}) == [{"day": "mon'day", "sum": 2.5}]
    with pytest.raises(Exception, match="no such table"):
        sql(["delete from sales", "select * from lost"], url)
    assert len(sql("select * from sales", url)) == 1


def test_a_database_without_a_driver_says_what_is_missing() -> None:
    with pytest.raises(ImportError, match=r"sql needs the driver of 'nosuch'.*where it runs"):
        sql("select 1", "nosuch://ada@db/x", password="pa55word")


@pytest.mark.parametrize(("step", "module"), [(sql, "sqlalchemy"), (docker_run, "docker")])
def test_a_library_that_is_missing_is_named(step: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{step.name} needs the package '{module}' where it runs"):
        step("x", "sqlite://")


def test_files_are_copied_and_moved(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    (source / "a.csv").write_text("a")
    (source / "deep" / "b.csv").write_text("b")
    (source / "c.txt").write_text("c")
    copied = copy_files(f"{source}/a.csv", f"{tmp_path}/one/renamed.csv")
    assert [Path(url.removeprefix("file://")).read_text() for url in copied] == ["a"]
    copy_files(f"{source}/*.csv", f"{tmp_path}/two")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["a.csv"]
    move_files(str(source), f"{tmp_path}/three/")
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "three").rglob("*") if path.is_file())
    assert found == ["three/a.csv", "three/c.txt", "three/deep/b.csv"]
    assert not [path for path in source.rglob("*") if path.is_file()]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        copy_files(f"{source}/*.csv", str(tmp_path))


@pytest.mark.parametrize("copy", [copy_files, move_files])
@pytest.mark.parametrize(
    ("source", "target"),
    [("in/x.csv", "in/"), ("in/*", "in"), ("in", "in"), ("in/x.csv", "in/x.csv"), ("in/x.csv", "link/"),
     ("in/x.csv", "out/../in/x.csv"), ("in/*.csv", "out/"), ("in/", "in/deep/")],
)  # fmt: skip
def test_no_file_is_copied_over_one_that_is_copied(copy: Any, source: str, target: str, tmp_path: Path) -> None:
    names = ("in/a.csv", "in/x.csv", "in/deep/a.csv")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.csv").hardlink_to(tmp_path / "in/x.csv")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ValueError, match=r"is not copied to .* would overwrite .* target outside"):
        copy(f"{tmp_path}/{source}", f"{tmp_path}/{target}")
    assert [(tmp_path / name).read_text() for name in names] == list(names)
    assert not (tmp_path / "out/a.csv").exists(), "refused before the first copy"


def test_no_object_of_a_store_is_copied_over_itself() -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory", skip_instance_cache=True)
    store.pipe_file("/one/a.csv", b"rows")
    try:
        with pytest.raises(ValueError, match="would overwrite"):
            move_files("memory://one/*", "memory:///one/")
        assert store.cat_file("/one/a.csv") == b"rows"
        assert copy_files("memory://one/*", "memory://two/") == ["memory:///two/a.csv"]
    finally:
        store.rm("/", recursive=True)


@pytest.mark.slow
def test_files_go_to_s3_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_s3("lake") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "a.csv").write_text("a" * 10)
        assert copy_files(f"{tmp_path}/*.csv", "s3://lake/raw/") == ["s3://lake/raw/a.csv"]
        assert wait_for_file("s3://lake/raw/*.csv") == ["s3://lake/raw/a.csv"]
        move_files("s3://lake/raw/a.csv", "s3://lake/old/b.csv")
        copy_files("s3://lake/old/b.csv", f"{tmp_path}/back.csv")
        assert (tmp_path / "back.csv").read_text() == "a" * 10
        with pytest.raises(TimeoutError):
            wait_for_file("s3://lake/raw/a.csv", poll_interval=0.02, patience=0.05)


def test_a_file_is_waited_for(tmp_path: Path) -> None:
    timer = threading.Timer(0.2, (tmp_path / "ready").write_text, ["x"])
    timer.start()
    assert wait_for_file(f"{tmp_path}/ready", poll_interval=0.02, patience=240) == [f"file://{tmp_path}/ready"]
    timer.join()


def test_no_name_in_a_store_leads_out_of_the_folder(tmp_path: Path) -> None:
    from flowyml.steps.files import _below

    for name in ("raw/../../evil", "raw/./x", "raw/a\\..\\b"):
        with pytest.raises(ValueError, match="would lead out of the folder"):
            _below(f"bucket/{name}", "bucket/raw")
    assert _below("bucket/raw/deep/x.csv", "bucket/raw") == "deep/x.csv"


class Mailbox(socketserver.StreamRequestHandler):
    """As much of an SMTP server as smtplib asks for."""

    messages: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.say("220 here")
        body: list[str] | None = None
        while line := self.rfile.readline().decode():
            if body is not None:
                if line == ".\r\n":
                    self.messages.append("".join(body))
                    body = None
                    self.say("250 kept")
                else:
                    body.append(line)
            elif line.upper().startswith("DATA"):
                body = []
                self.say("354 go on")
            elif line.upper().startswith("QUIT"):
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


def test_an_email_is_sent() -> None:
    kind: Any = type("Fresh", (Mailbox,), {"messages": []})
    with socketserver.TCPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.server_address[1]
        given: dict[str, Any] = {"sender": "flow@example.org", "host": "127.0.0.1", "port": port, "security": "none"}
        email(["ada@example.org", "bob@example.org"], "Sales", "All is well.", html="<b>All</b>", **given)
        with pytest.raises(ValueError, match=r"newline|linefeed|line"):
            email("ada@example.org", "Sales\r\nBcc: eve@example.org", "x", **given)
        with pytest.raises(ValueError, match="sends no password over an unencrypted connection"):
            email("ada@example.org", "Sales", "x", username="u", password="p", **given)
        server.shutdown()
        thread.join()
    (message,) = kind.messages
    assert "To: ada@example.org, bob@example.org" in message
    assert "All is well." in message
    assert "<b>All</b>" in message


def test_the_last_line_of_a_container(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Docker hands on what was written at a time: several lines, or the half of one, or of a character."""
    pieces = [b"one\ntw", b"o\nthree \xe2\x82", b"\xac\nlast"]
    container = SimpleNamespace(
        logs=lambda **_: iter(pieces), wait=lambda: {"StatusCode": 0}, remove=lambda **_: None
    )  # fmt: skip
    client = SimpleNamespace(
        containers=SimpleNamespace(run=lambda *_, **__: container), close=lambda: None
    )  # fmt: skip
    docker: Any = ModuleType("docker")
    docker.from_env, docker.errors = lambda: client, SimpleNamespace(DockerException=OSError)
    monkeypatch.setitem(sys.modules, "docker", docker)
    assert docker_run("alpine") == "last"
    assert capsys.readouterr().out == "one\ntwo\nthree €\nlast\n"


# docker-py leaves the socket of a connection that failed to the garbage collector.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_without_docker_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ConnectionError, match="finds no Docker on this worker"):
        docker_run("alpine", "true")
    gc.collect()


def test_workers_have_the_ready_made_steps_of_their_pipeline() -> None:
    @pipeline
    def with_bash() -> None:
        bash("true")

    assert "flowyml/steps/commands.py" in with_bash.bundle().files
