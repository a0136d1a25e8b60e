"""Where a pipeline comes from, and what that decides: the same project and file on any machine."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.authoring.origins import origin_of
from flowyml.core.errors import ConfigurationError, OwnershipError
from flowyml.core.origin import Origin
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.bundle import Bundle, build
from tests.unit.commands import python

pytestmark = pytest.mark.processes

SCRIPT = """
from flowyml import Pipeline, step

@step
def one():
    return 1

train = Pipeline("train").add_step(one)

if __name__ == "__main__":
    print(train.origin)
"""
GIT = (
    '[core]\n\tbare = false\n[remote "fork"]\n\turl = git@example.com:other/one.git\n[remote "origin"]\n\turl = {url}\n'
)


def written(path: Path, text: str = SCRIPT) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_namespace_outweighs_the_projects_name_and_that_outweighs_the_git_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "pipelines" / "train.py")
    assert origin_of(file) == Origin("", "pipelines/train.py")  # the folder's name stands for the project
    written(tmp_path / ".git" / "config", GIT.format(url="https://me:secret@git.example.com/acme/forecasts.git"))
    assert origin_of(file) == Origin("acme/forecasts", "pipelines/train.py")
    written(tmp_path / "pyproject.toml", '[project]\nname = "forecasts"\n')
    assert origin_of(file) == Origin("forecasts", "pipelines/train.py")
    written(tmp_path / "flowyml.toml", 'namespace = "acme"\n')
    assert origin_of(file) == Origin("acme", "pipelines/train.py")
    monkeypatch.setenv("FLOWYML_NAMESPACE", "nightly")
    assert origin_of(file) == Origin("nightly", "pipelines/train.py")


@pytest.mark.parametrize(
    ("text", "project"),
    [
        ('[tool.flowyml]\nnamespace = "acme"\n[project]\nname = "other"\n', "acme"),
        ('[tool.poetry]\nname = "forecasts"\n', "forecasts"),
        ("[tool.ruff]\n", ""),
        ('project = "forecasts"\n[tool]\nflowyml = "acme"\npoetry = 1\n', ""),
    ],
)
def test_what_a_pyproject_says(tmp_path: Path, text: str, project: str) -> None:
    written(tmp_path / "pyproject.toml", text)
    assert origin_of(written(tmp_path / "src" / "train.py")).project == project


def test_the_layout_with_a_src_folder_and_the_installed_package_have_one_module(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", '[project]\nname = "forecasts"\n')
    assert origin_of(written(tmp_path / "src" / "forecasts" / "train.py")) == Origin("forecasts", "forecasts/train.py")
    # pytest's own file: site-packages may well stand inside of some project.
    assert origin_of(str(pytest.__file__)) == Origin("pytest", "pytest/__init__.py")


def test_what_stands_above_a_git_repository_is_not_its_project(tmp_path: Path) -> None:
    written(tmp_path / "flowyml.toml", 'namespace = "home"\n')
    written(tmp_path / "checkout" / ".git" / "config", "[core]\n")
    assert origin_of(written(tmp_path / "checkout" / "jobs" / "train.py")) == Origin("", "jobs/train.py")


def test_a_worktree_has_the_remote_of_its_repository(tmp_path: Path) -> None:
    written(tmp_path / "main" / ".git" / "config", GIT.format(url="git@example.com:acme/forecasts.git"))
    written(tmp_path / "main" / ".git" / "worktrees" / "fix" / "commondir", "../..\n")
    written(tmp_path / "fix" / ".git", f"gitdir: {tmp_path}/main/.git/worktrees/fix\n")
    assert origin_of(written(tmp_path / "fix" / "train.py")) == Origin("acme/forecasts", "train.py")


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    written(tmp_path / "flowyml.toml", "namespace = \n")
    with pytest.raises(ConfigurationError, match=r"flowyml\.toml cannot be read"):
        origin_of(written(tmp_path / "train.py"))


def test_every_way_to_start_a_script_gives_one_origin_and_a_second_checkout_gives_the_same(tmp_path: Path) -> None:
    seen = set()
    for checkout in ("laptop", "ci"):
        root = tmp_path / checkout
        written(root / "pyproject.toml", '[project]\nname = "forecasts"\n')
        written(root / "jobs" / "train.py")
        ways = [(["train.py"], "jobs"), (["jobs/train.py"], "."), (["-m", "jobs.train"], ".")]
        for command, folder in ways if checkout == "laptop" else ways[:1]:
            seen.add(python(root / folder, *command).out)
    assert seen == {"forecasts: jobs/train.py\n"}
    python(root, "-m", "flowyml", "deploy", "jobs/train.py", FLOWYML_HOME=str(root / "home"))
    (bundle,) = (root / "home" / "bundles").iterdir()
    assert BundledPipeline(bundle).origin == Origin("forecasts", "jobs/train.py")
    assert str(tmp_path).encode() not in Bundle.read(bundle).files["bundle.json"]


def test_a_pipeline_is_where_it_is_written_not_where_its_steps_or_its_class_are(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", '[project]\nname = "mine"\n')
    written(tmp_path / "library" / "steps.py", "from flowyml import Pipeline, step\none = step(lambda: 1, name='one')\n"
            "class Own(Pipeline):\n    def __init__(self, name):\n        super().__init__(name)\n")  # fmt: skip
    written(tmp_path / "a.py", "from library.steps import Own, one\nprint(Own('train').add_step(one).origin)\n")
    assert python(tmp_path, "a.py").out == "mine: a.py\n"


def test_without_a_file_the_project_is_that_of_the_working_folder(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", '[project]\nname = "mine"\n')
    assert python(tmp_path, "-c", "import flowyml; print(flowyml.Pipeline('x').origin)").out == "mine: notebook\n"


def test_a_bundle_keeps_its_origin_and_other_code_has_another_digest() -> None:
    @step
    def one() -> int:
        return 1

    plan = Pipeline("kept").add_step(one).compile()
    origin = Origin("acme", "train.py")
    bundle = build(plan, files={"train.py": b"a = 1\n"}, origin=origin)
    assert bundle.with_files({"more.txt": b""}).origin == origin
    assert bundle.with_files({"flowyml/_version.py": b""}).code_digest == bundle.code_digest
    assert build(plan, files={"train.py": b"a = 2\n"}).code_digest != bundle.code_digest
    assert build(plan).origin is None
    old = bundle.with_files({"bundle.json": json.dumps({"main": None}).encode()})
    assert old.origin is None


def test_who_may_replace_what() -> None:
    ours, theirs = Origin("acme", "train.py"), Origin("other", "train.py")
    check_replaceable(ours, ours, "the schedule 'train'")
    check_replaceable(theirs, ours, "the schedule 'train'", force=True)
    with pytest.raises(OwnershipError) as caught:
        check_replaceable(theirs, ours, "the schedule 'train'")
    assert str(caught.value) == (
        "The schedule 'train' comes from other: train.py; this pipeline comes from acme: train.py. Rename this "
        "pipeline, or set a `namespace` in the project's flowyml.toml. To replace it anyway: force=True, or "
        "--force."
    )
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(OwnershipError, match="this bundle does not say where it comes from"):
        check_replaceable(theirs, None, "the schedule 'train'")
    with pytest.warns(UserWarning, match="The schedule 'train' does not say which project it comes from"):
        check_replaceable(None, ours, "the schedule 'train'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_replaceable(None, ours, "the schedule 'train'", force=True)
