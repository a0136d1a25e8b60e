"""Named targets: files, the environment, and what is said of mistakes in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from flowyml.core.errors import ConfigurationError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.targets import resolve, target, targets


class Toy(Orchestrator):
    name = "toy"

    def __init__(
        self,
        url: str | None = None,
        *,
        workers: int = 1,
        mode: Literal["a", "b"] = "a",
        labels: Mapping[str, str] | None = None,
        token: str | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        super().__init__(retry_policy=retry_policy)
        self.given = {"url": url, "workers": workers, "mode": mode, "labels": labels, "token": token}


Toy.__abstractmethods__ = frozenset()


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {"toy": Toy})


def write(text: str, path: str = "flowyml.toml") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def given(on: str, **options: Any) -> dict[str, Any]:
    orchestrator = resolve(on, **options)
    assert isinstance(orchestrator, Toy)
    return {key: value for key, value in orchestrator.given.items() if value is not None}


def test_the_nearest_file_at_or_above_the_folder_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.prod]\nengine = "toy"\nurl = "http://far"\n')
    write("[project]\nname = 'other'\n", "inner/pyproject.toml")
    monkeypatch.chdir("inner")
    assert given("prod")["url"] == "http://far"
    write('[tool.flowyml.orchestrators.prod]\nengine = "toy"\nurl = "http://near"\n', "pyproject.toml")
    assert given("prod")["url"] == "http://near"


def test_the_environment_alone_makes_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__CI__ENGINE", "toy")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__CI__URL", "http://ci")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__CI__LABELS", '{"team": "ml"}')
    assert given("ci") == {"url": "http://ci", "workers": 1, "mode": "a", "labels": {"team": "ml"}}


def test_a_variable_finds_a_table_whose_name_no_shell_could_spell(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.EU-prod]\nengine = "toy"\nurl = "http://eu"\n')
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__EU_PROD__URL", "http://other")
    assert given("EU-prod")["url"] == "http://other"


def test_the_call_wins_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.prod]\nengine = "toy"\nurl = "http://prod"\nworkers = 4\n')
    assert given("prod") == {"url": "http://prod", "workers": 4, "mode": "a"}
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__URL", "http://env")
    assert given("prod") == {"url": "http://env", "workers": 4, "mode": "a"}
    assert given("prod", url="http://call")["url"] == "http://call"


def test_a_table_named_like_an_engine_holds_its_defaults() -> None:
    write(
        '[orchestrators.toy]\nurl = "http://default"\nworkers = 2\n[orchestrators.prod]\nengine = "toy"\nworkers = 4\n'
    )
    assert given("toy") == {"url": "http://default", "workers": 2, "mode": "a"}
    assert given("prod") == {"url": "http://default", "workers": 4, "mode": "a"}


def test_a_table_becomes_a_record_into_which_the_environment_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.prod]\nengine = "toy"\nretry-policy = {max_attempts = 5, initial_delay_seconds = 9}\n')
    assert resolve("prod").retry_policy == OrchestratorRetryPolicy(max_attempts=5, initial_delay_seconds=9)
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__RETRY_POLICY__MAX_ATTEMPTS", "7")
    assert resolve("prod").retry_policy == OrchestratorRetryPolicy(max_attempts=7, initial_delay_seconds=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[orchestrators.prod]\nengine = "toy"\nurll = "x"', r"\[orchestrators.prod\]: 'toy' has no option 'urll'"),
        ('[orchestrators.prod]\nengine = "toy"\nworkers = "many"', r"\[orchestrators.prod\]: workers: .*valid integer"),
        ('[orchestrators.prod]\nengine = "toy"\nmode = "c"', r"\[orchestrators.prod\]: mode: .*'a' or 'b'"),
        ('[orchestrators.prod]\nurl = "x"', r"\[orchestrators.prod\]: say which engine 'prod' runs on: engine = "),
        ('[orchestrators.prod]\nengine = "tyo"', r"\[orchestrators.prod\]: engine 'tyo' is unknown. Name one of .*toy"),
        ('[orchestrators.toy]\nengine = "local"', r"'toy' is an engine itself and cannot be 'local'"),
        ("[orchestrators]\nprod = 3", r"\[orchestrators.prod\]: this is a table of keys, not int"),
        ("orchestrators = 3", r"flowyml.toml: \[orchestrators\]: this is a table of keys, not int"),
        (
            '[orchestrators.prod]\nengine = "local"\nmax_workers = 0',
            r"max_workers=0 must be a whole number from 1. Configured in .*flowyml.toml: \[orchestrators.prod\]",
        ),
        ('[orchestrator.prod]\nengine = "toy"', r"'namespace' and 'allow_pickle' here, not 'orchestrator'"),
        ("[orchestrators.prod\n", r"flowyml.toml cannot be read: "),
        ("[orchestrators.prod]\nengine = 3", r"\[orchestrators.prod\]: engine 3 is unknown"),
        ("[orchestrators.prod]\n", r"\[orchestrators.prod\]: say which engine"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_names_the_file_and_the_key(text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve("toy" if "orchestrators.toy" in text else "prod")
    assert "flowyml.toml" in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.prod]\nengine = "toy"\n')
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__WORKERS", "many")
    with pytest.raises(ConfigurationError, match=r"^FLOWYML_ORCHESTRATORS__PROD__WORKERS: workers: "):
        resolve("prod")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD", "http://x")
    with pytest.raises(ConfigurationError, match="FLOWYML_ORCHESTRATORS__PROD"):
        resolve("prod")


@pytest.mark.parametrize("table", ['engine = "spark"', 'url = "http://x"', "workers = 3"])
def test_a_target_that_cannot_be_used_harms_no_other(table: str) -> None:
    """Such as one whose engine is a plugin that only some machines have."""
    write(f'[orchestrators.un]\n{table}\n[orchestrators.prod]\nengine = "toy"\nworkers = 2\n')
    assert given("prod") == {"workers": 2, "mode": "a"}
    assert resolve("local").name == "local"
    assert targets()["un"].fault
    with pytest.raises(ConfigurationError, match=r"orchestrators\.un\]"):
        resolve("un")


def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match="The working folder was deleted"):
        targets()


def test_no_credential_reaches_a_repr_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[orchestrators.prod]\nengine = "toy"\ntoken = "hunter2"\nurl = "http://me:hunter2@prod"\n')
    assert "hunter2" not in repr(target("prod"))
    assert "hunter2" not in str(targets())
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__WORKERS", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        resolve("prod")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_relative_path_counts_from_the_file_that_it_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Placed(Toy):
        def __init__(self, *, store: str | os.PathLike[str] | None = None, url: str | None = None) -> None:
            super().__init__(url=url)
            self.given["store"] = None if store is None else os.fspath(store)

    monkeypatch.setattr(registry, "_registered", {"toy": Placed})
    root = write('[orchestrators.prod]\nengine = "toy"\nstore = "data/my.db"\nurl = "relative"\n').parent.absolute()
    (root / "below").mkdir()
    monkeypatch.chdir("below")
    assert given("prod")["store"] == str(root / "data" / "my.db")
    assert given("prod")["url"] == "relative"  # no path, by the type that the constructor asks for
    for place in ("s3://bucket/x", "/absolute"):
        write(f'[orchestrators.prod]\nengine = "toy"\nstore = "{place}"\n', str(root / "flowyml.toml"))
        assert given("prod")["store"] == place
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__STORE", "from/here")
    assert given("prod")["store"] == "from/here"
