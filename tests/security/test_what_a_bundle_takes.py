"""What ``include=`` puts into a bundle: what was meant, below the pipeline's folder, and no secret by accident."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flowyml.authoring import data_files
from flowyml.authoring.data_files import read_included
from flowyml.core.errors import DefinitionError
from flowyml.plan.bundle import Bundle
from tests.unit.commands import command, flowyml

SECRET = "planted-value"
PIPELINE = """
from pathlib import Path
from flowyml import Pipeline, step

@step
def count():
    return len(list((Path(__file__).parent / "data").iterdir()))

counting = Pipeline("counting", include={include}).add_step(count)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder as projects are, with a secret in each place where people have one."""
    root = tmp_path / "project"
    compiled = "__pycache__/counting.cpython-311.pyc"
    for name in (".env", ".git/config", "flowyml.toml", "pyproject.toml", "data/.secret/key", "data/.netrc", compiled):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("" if name.endswith(".toml") else SECRET)
    (root / "flowyml.toml").write_text(f'[orchestrators.prod]\nengine = "prefect"\npassword = "{SECRET}"\n')
    (root / "pyproject.toml").write_text(
        f'[tool.flowyml.orchestrators.old]\nengine = "prefect"\npassword = "{SECRET}"\n'
    )
    (root / "data" / "rows.csv").write_text("1,2")
    (root / "data" / "more.csv").write_text("3,4")
    return root


def test_everything_is_taken_but_what_is_hidden_and_the_settings(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    Path("counting.py").write_text(PIPELINE.format(include=["**/*"]))
    done = command("bundle", "counting.py", "-o", "made", "--json")
    assert done.code == 0, done.err
    bundle = Bundle.read(project / done.json["path"])
    taken = {path.removeprefix("code/") for path in bundle.files if path.startswith("code/")}
    assert taken == {"counting.py", "data/rows.csv", "data/more.csv"}
    assert SECRET.encode() not in bundle.data
    assert "include= takes along 3 files, " in done.err
    assert "data/rows.csv" in done.err
    assert "Left out: .env, .git, data/.netrc, data/.secret, flowyml.toml" in done.err
    Path("more.py").write_text(PIPELINE.format(include=["data/*"]))
    ran = flowyml("run", "more.py", "--json")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("pattern", [".env", ".git/config", "flowyml.toml", "data/.secret/*", "data/.secret/key"])
def test_what_is_named_is_taken(project: Path, pattern: str) -> None:
    (data,) = read_included(project, [pattern], "p").values()
    assert SECRET.encode() in data


@pytest.mark.parametrize(
    "pattern", [".e*", ".[e]nv", ".*", "*.toml", "*/config", "data/.*", ".g*/config", "data/.*/key"]
)
def test_a_wildcard_names_nothing(project: Path, pattern: str) -> None:
    with pytest.raises(DefinitionError, match=r"Pipeline 'p': include=.* matches only files that are left out unless"):
        read_included(project, [pattern], "p")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside.txt"])
@pytest.mark.parametrize("pattern", ["**/*", "data/link", "data/l*"])
def test_a_link_that_leads_out_is_refused_by_its_name(project: Path, target: str, pattern: str) -> None:
    (project.parent / "outside.txt").write_text(SECRET)
    (project / "data" / "link").symlink_to(target)
    with pytest.raises(
        DefinitionError, match=r"takes .*/project/data/link, a link to .*, which is outside .*/project\."
    ):
        read_included(project, [pattern], "p")


def test_a_folder_that_is_a_link_out_is_refused(project: Path) -> None:
    (project.parent / "elsewhere").mkdir()
    (project.parent / "elsewhere" / "key").write_text(SECRET)
    (project / "linked").symlink_to(project.parent / "elsewhere")
    with pytest.raises(DefinitionError, match=r"takes .*/linked/key, a link to .*/elsewhere/key"):
        read_included(project, ["linked/*"], "p")
    assert not [name for name in read_included(project, ["**/*"], "p") if name.startswith("linked")]


def test_a_link_inside_is_taken_and_gives_no_way_to_what_is_hidden(project: Path) -> None:
    (project / "data" / "again.csv").symlink_to("rows.csv")
    (project / "data" / "env.csv").symlink_to("../.env")
    (project / "data" / "targets.csv").symlink_to("../flowyml.toml")
    assert set(read_included(project, ["data/*.csv"], "p")) == {"data/rows.csv", "data/more.csv", "data/again.csv"}


def test_too_much_is_refused_before_it_is_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project / "data" / "huge.bin").open("wb") as file:
        file.truncate(data_files.MAX_BYTES)  # a hole: it takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(
        DefinitionError, match=r"takes 100\.0 MB, and 100\.0 MB may come .*: data/huge\.bin \(100\.0 MB\)"
    ):
        read_included(project, ["data/*"], "p")


def test_what_is_taken_is_logged(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowyml.bundle")
    read_included(project, ["data/*"], "p")
    assert caplog.messages == [
        "Pipeline 'p': include= takes along 2 files, 6 bytes: data/more.csv, data/rows.csv. Left out: data/.netrc."
    ]


def test_the_folder_itself_is_not_a_glob_of_files(project: Path) -> None:
    with pytest.raises(DefinitionError, match=r"include='\.' names the folder itself\. Write which files"):
        read_included(project, ["."], "p")
