"""Settings can have commands run: one that another user left in a folder above is refused, and does nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flowyml.authoring.git_revisions import revision_of
from flowyml.authoring.origins import origin_of
from flowyml.core.errors import ConfigurationError
from flowyml.core.files import refuse_others_link
from flowyml.core.origin import Origin
from flowyml.core.settings import TRUSTED, settings_file
from tests.engines.web import Authority, Reply, authority, web
from tests.unit.commands import flowyml

NOBODY = 65534
TRAIN = """
from flowyml import Pipeline, step

p = Pipeline("p").add_step(step(name="a")(lambda: 1))
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
AIRFLOW = b'{"version": "3.3.2", "git_version": "x", "dag_runs": [], "total_entries": 0}'


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own below one for all, as in /tmp."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "mine").mkdir()
    monkeypatch.chdir(shared / "mine")
    return shared


def test_a_folder_above_that_may_not_be_searched_has_no_settings(below: Path) -> None:
    """As where root's folder is the working folder of `sudo -u airflow flowyml …`."""
    below.chmod(0o700)
    os.seteuid(NOBODY)
    try:
        assert settings_file() is None
        assert origin_of(None) == Origin("", "notebook")
        assert revision_of(None) is None
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["flowyml.toml", "pyproject.toml"])
def test_a_command_of_theirs_is_not_run(below: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "orchestrators.airflow" if name == "flowyml.toml" else "tool.flowyml.orchestrators.airflow"
    theirs, ran = below / name, below / "ran"
    with web(lambda _: Reply(body=AIRFLOW)) as airflow:
        theirs.write_text(f'[{table}]\nurl = "{airflow.url}"\ntoken_command = "touch {ran}"\n')
        monkeypatch.setenv(TRUSTED, str(below))
        flowyml("runs", "--on", "airflow")
        assert ran.exists(), "the attack works where the folder is trusted"
        ran.unlink()
        monkeypatch.delenv(TRUSTED)
        os.chown(theirs, NOBODY, NOBODY)
        done = flowyml("runs", "--on", "airflow")
    assert not ran.exists()
    assert f"{theirs} belongs to another user" in done.err


TARGET = '[orchestrators.prod]\nengine = "airflow"\nurl = "{url}"\n{option} = "{value}"\nusername = "ada"\n'


@pytest.mark.parametrize("command", [("backends",), ("runs", "--on", "prod"), ("schedule", "list", "--on", "prod")])
@pytest.mark.parametrize("option", ["token_command", "password_command"])
def test_a_cloned_folder_has_no_command_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    with web(lambda _: Reply(body=AIRFLOW)) as airflow:
        Path("flowyml.toml").write_text(TARGET.format(url=airflow.url, option=option, value=f"touch {ran}"))
        done = flowyml(*command)
        assert not ran.exists()
        assert command == ("backends",) or f"{option} is not used" in done.err
        monkeypatch.setenv(TRUSTED, f"/elsewhere:{tmp_path}/")
        flowyml(*command)
    assert ran.exists()


@pytest.mark.parametrize("option", ["token_file", "password_file"])
def test_a_cloned_folder_sends_no_file_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of-the-user").write_text("planted-5f2")
    variable = f"FLOWYML_ORCHESTRATORS__PROD__{option.upper()}"
    with web(lambda _: Reply(body=AIRFLOW)) as airflow:
        Path("flowyml.toml").write_text(TARGET.format(url=airflow.url, option=option, value=tmp_path / "of-the-user"))
        done = flowyml("runs", "--on", "prod")
        assert "planted-5f2" not in airflow.everything
        assert f"export {TRUSTED}={tmp_path}" in done.err
        assert f"Or set {variable}." in done.err
        monkeypatch.setenv(variable, str(tmp_path / "of-the-user"))
        flowyml("runs", "--on", "prod")
        assert "planted-5f2" in airflow.everything


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("option", ["verify", "ca_file", "client_cert"])
def test_a_cloned_folder_decides_nothing_about_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: Authority, option: str
) -> None:
    """Else it would turn off verification, name an authority of its own, or present a certificate of the user's."""
    monkeypatch.chdir(tmp_path)
    given = {
        "verify": "verify = false",
        "ca_file": f'ca_file = "{private.ca}"',
        "client_cert": f'client_cert = ["{private.client_cert}", "{private.client_key}"]',
    }
    wants = option == "client_cert"
    with web(lambda _: Reply(body=AIRFLOW), private.server(wants_certificate=wants)) as airflow:
        if wants:
            monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__CA_FILE", str(private.ca))
        Path("flowyml.toml").write_text(
            f'[orchestrators.prod]\nengine = "airflow"\nurl = "{airflow.url}"\ntoken = "x"\n{given[option]}\n'
        )
        done = flowyml("runs", "--on", "prod")
        assert airflow.requests == []
        assert f"{option} is not used" in done.err
        assert f"export {TRUSTED}={tmp_path} " in done.err
        assert flowyml("backends").code == 0
        assert airflow.requests == []
        monkeypatch.setenv(TRUSTED, str(tmp_path))
        assert flowyml("runs", "--on", "prod").code == 0
        assert "Bearer x" in airflow.everything


def test_a_file_in_the_home_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    ran = tmp_path / "ran"
    with web(lambda _: Reply(body=AIRFLOW)) as airflow:
        command = TARGET.format(url=airflow.url, option="token_command", value=f"touch {ran}")
        (tmp_path / "flowyml.toml").write_text(command)
        flowyml("runs", "--on", "prod")
    assert ran.exists()


def test_what_needs_no_credential_works_in_a_cloned_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = TARGET.format(url="http://127.0.0.1:9", option="token_command", value="false")
    Path("flowyml.toml").write_text(f"{target}verify = false\n")
    Path("train.py").write_text(TRAIN)
    assert flowyml("compile", "train.py", "--to", "prod").code == 0


def test_neither_does_their_store_get_a_run(below: Path) -> None:
    (below / "flowyml.toml").write_text(f'[orchestrators.local]\nstore = "{below}/loot.db"\n')
    os.chown(below / "flowyml.toml", NOBODY, NOBODY)
    Path("train.py").write_text(TRAIN)
    done = flowyml("run", "train.py")
    assert done.code == 2
    assert "belongs to another user" in done.err
    assert not (below / "loot.db").exists()


def test_a_folder_may_be_trusted_by_name(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (below / "flowyml.toml").touch()
    os.chown(below / "flowyml.toml", NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match=f"set {TRUSTED}="):
        settings_file()
    monkeypatch.setenv(TRUSTED, f"/elsewhere:{below}")
    assert settings_file() == below / "flowyml.toml"


def test_a_pyproject_that_does_not_speak_of_flowyml_may_be_theirs(below: Path) -> None:
    (below / "pyproject.toml").write_text("[project]\n")
    os.chown(below / "pyproject.toml", NOBODY, NOBODY)
    assert settings_file() is None


def planted(path: Path, text: str) -> Path:
    path.write_text(text)
    os.chown(path, NOBODY, NOBODY)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 2**18 + "x",  # minutes, where each blank line is looked at from each
        "a" + ".a" * 2**16 + " = 1",  # minutes, in tomllib
        "a = " + "[" * 2**17,
        "no TOML",
    ],
    ids=["blank lines", "dots", "brackets", "broken"],
)
def test_a_pyproject_of_theirs_stops_nothing(below: Path, text: str) -> None:
    planted(below / "pyproject.toml", text)
    Path("train.py").write_text(TRAIN)
    began = time.process_time()
    done = flowyml("run", "train.py")
    assert done.code == 0, done.err
    assert time.process_time() - began < 30


def test_neither_does_a_pipe_in_place_of_one(below: Path) -> None:
    os.mkfifo(below / "pyproject.toml")
    os.chown(below / "pyproject.toml", NOBODY, NOBODY)
    Path("train.py").touch()
    assert settings_file() is None
    assert origin_of("train.py").project == ""


def test_nor_a_repository_of_theirs(below: Path) -> None:
    (below / ".git").mkdir()
    (below / ".git" / "config").write_text('[remote "origin"]\n\turl = https://git.example.com/acme/sales.git\n')
    Path("train.py").touch()
    assert origin_of("train.py").project == "acme/sales"
    os.chown(below / ".git", NOBODY, NOBODY)
    assert origin_of("train.py").project == ""


def test_the_config_of_a_repository_is_read_once(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text(
        "\n" * 2**18 + '[remote "origin"]' + "\n" * 2**18 + "url = /srv/sales.git"
    )
    (tmp_path / "train.py").touch()
    assert origin_of(str(tmp_path / "train.py")).project == "sales"


@pytest.mark.parametrize("name", [".env", "prefect.toml", "pyproject.toml"])
def test_prefect_is_not_where_they_say(below: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("prefect")
    from flowyml_prefect.connection import Connection

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(below / "none"))
    monkeypatch.chdir(below)
    table = {".env": "PREFECT_API_URL", "prefect.toml": "api.url", "pyproject.toml": "tool.prefect.api.url"}[name]
    (below / name).write_text(f'{table} = "http://127.0.0.1:9/api"\n')
    assert Connection.configured() is not None
    os.chown(below / name, NOBODY, NOBODY)
    assert Connection.configured() is None


def test_a_project_of_theirs_that_is_mounted_counts(below: Path) -> None:
    (below / "mine" / "pyproject.toml").write_text('[project]\nname = "sales"\n')
    for path in (below / "mine", below / "mine" / "pyproject.toml"):
        os.chown(path, NOBODY, NOBODY)
    Path("train.py").touch()
    assert origin_of("train.py").project == "sales"


def test_a_folder_that_is_their_link_is_not_written_to(below: Path) -> None:
    (below / "real").mkdir()
    link = below / "flowyml_bundles"
    link.symlink_to(below / "real")
    refuse_others_link(link)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(OSError, match="a link that belongs to another user"):
        refuse_others_link(link)
