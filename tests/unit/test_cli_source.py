"""From FILE[:NAME] to a pipeline, and from -p NAME=VALUE to a parameter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowyml.cli.failures import UsageError
from flowyml.cli.source import load, read_parameters, read_values
from flowyml.core.errors import ParameterError, PlanError
from flowyml.plan.model import Parameter, Plan, Step
from flowyml.plan.parameters import check_values

PIPELINE = """
from flowyml import pipeline, step
@step
def one(rows: int = 1) -> int:
    return rows
"""
TWO = (
    PIPELINE
    + "@pipeline\ndef first():\n    return one()\n@pipeline(name='the second')\ndef second():\n    return one()\n"
)
ONE = PIPELINE + "@pipeline\ndef only():\n    return one()\n"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    arguments = sys.argv
    yield
    assert sys.argv is arguments


def write(text: str, path: str = "train.py") -> str:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


@pytest.mark.parametrize(
    ("files", "reference"),
    [
        ({"train.py": ONE}, "train.py"),
        ({"train.py": ONE + "alias = only\n"}, "train.py:only"),
        ({"train.py": ONE + "only.run()\nraise SystemExit('it went on')\n"}, "train.py"),
        ({"train.py": "import sys\nassert sys.argv == ['train.py'], sys.argv\n" + ONE}, "train.py"),
        ({"inner/settings.py": "ROWS = 3\n", "inner/train.py": "from settings import ROWS\n" + ONE}, "inner/train.py"),
        ({"pack/settings.py": "ROWS = 3\n", "pack/train.py": "from .settings import ROWS\n" + ONE}, "pack/train.py"),
        ({"pack/train.py": ONE}, "pack.train:only"),
        ({"pack/train.py": ONE}, "pack.train"),
    ],
    ids=["one", "two names", "unguarded run", "arguments", "file beside", "package", "module and name", "module"],
)
def test_a_file_or_module_with_one_pipeline(files: dict[str, str], reference: str) -> None:
    """Its functions are referred to as workers import them."""
    for path, text in files.items():
        if path.startswith("pack/"):
            write("", "pack/__init__.py")
        write(text, path)
    found = load(reference)
    module = "pack.train" if "pack" in reference else "train"
    assert (found.name, found.compile().steps[0].function) == ("only", f"{module}:one")
    if files == {"train.py": ONE}:
        assert load(str(Path("train.py").absolute())).name == "only"


def test_several_pipelines_need_a_name() -> None:
    write(TWO)
    with pytest.raises(UsageError, match=r"several pipelines\. Choose one of: train.py:first, train.py:second\."):
        load("train.py")
    assert load("train.py:second").name == "the second"
    assert load("train.py:the second").name == "the second"
    with pytest.raises(UsageError, match=r"no pipeline 'third'\. Choose one of: train.py:first"):
        load("train.py:third")


def test_a_pipeline_that_is_run_at_once_needs_a_name() -> None:
    write("from flowyml import Pipeline, step\n@step\ndef one(): ...\nPipeline('p').add_step(one).run()\n")
    with pytest.raises(
        UsageError, match=r"no pipeline at module level\. Loading stopped at the line that runs a pipeline"
    ):
        load("train.py")


def test_a_file_without_a_pipeline() -> None:
    with pytest.raises(UsageError, match="no pipeline at module level"):
        load(write("x = 1\n"))


def test_a_bundle() -> None:
    path = load(write(ONE)).bundle().write("dist")
    assert load(str(path)).name == "only"
    assert load(f"{path}:only").name == "only"
    with pytest.raises(UsageError, match="contains the pipeline 'only', not 'other'"):
        load(f"{path}:other")
    with pytest.raises(UsageError, match="no such file"):
        load("gone.pyz")
    with pytest.raises(PlanError, match="is not a FlowyML bundle"):
        load(write("junk", "junk.pyz"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "train.py cannot be loaded: ZeroDivisionError: division by zero"),
        ("def f(:", "train.py cannot be loaded: SyntaxError"),
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        (
            "raise SystemExit(3)",
            r"train.py called sys.exit\(3\) when it was loaded.* under `if __name__ == '__main__'`",
        ),
        ("from flowyml import Pipeline\nPipeline(1)", "cannot be loaded: DefinitionError"),
        ("import flowyml\n@flowyml.step(retires=2)\ndef f(): ...", "has no option 'retires'. Did you mean 'retry'"),
        ("from flowyml import step\n@step(airflow=2)\ndef f(): ...", "airflow=2 must be a dict of plain JSON"),
    ],
)
def test_a_file_that_cannot_be_loaded_shows_its_own_frames(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(write(text))
    assert "train.py" in caught.value.detail
    assert "cli/source.py" not in caught.value.detail


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gone.py", "gone.py: there is no such file"),
        ("gone.py:x", "gone.py: there is no such file"),
        ("gone.module:x", "gone.module: there is no such file or module"),
        ("gone", "gone: there is no such file or module"),
        ("", "there is no such file or module"),
        ("..", "there is no such file"),
        ("a/b", "a/b: there is no such file"),
        ("/tmp", "/tmp is a folder. Name a Python file in it"),
    ],
)
def test_what_is_not_there(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(reference)


def test_file_names_that_workers_could_not_import() -> None:
    with pytest.raises(UsageError, match=r"Rename it, say to train\.py"):
        load(write(ONE, "train.v2.py"))
    with pytest.raises(UsageError, match="a module of Python's own"):
        load(write(ONE, "json.py"))
    with pytest.raises(UsageError, match="neither a Python file"):
        load(write(ONE, "train.txt"))


def values(schema: dict[str, Any], *given: str) -> dict[str, Any]:
    step = Step(name="s", function="m:f")
    return read_parameters(Plan(name="p", steps=(step,), parameters=(Parameter(name="x", schema=schema),)), given)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "integer"}, "5", 5),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": null}', {"a": None}),
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, "", ""),
        ({"type": "string"}, "a=b", "a=b"),
        ({"type": "integer"}, "five", "five"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "7", "7"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "7", 7),
        ({}, "7", 7),
        ({}, "seven", "seven"),
        ({"type": "number"}, "NaN", "NaN"),
    ],
)
def test_a_parameter_is_read_by_its_type(schema: dict[str, Any], text: str, value: object) -> None:
    assert values(schema, f"x={text}") == {"x": value}


@pytest.mark.parametrize("schema", [{"type": "object"}, {}])
@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e400}'])
def test_a_number_that_json_has_not_is_refused_in_a_dict_too(schema: dict[str, Any], text: str) -> None:
    """It stays a number, which the check of parameters refuses: it became text, 'NaN', or the whole did."""
    parameter = Parameter(name="x", schema=schema)
    with pytest.raises(ParameterError, match="not plain JSON"):
        check_values("p", [parameter], values(schema, f"x={text}"))
    with pytest.raises(UsageError, match=r"-p x: .* is not plain JSON"):
        read_values([f"x={text}"])


def test_such_a_word_by_itself_is_text() -> None:
    assert read_values(["x=NaN"]) == values({}, "x=NaN") == {"x": "NaN"}


@pytest.mark.parametrize("text", ["x", "=5", ""])
def test_a_parameter_without_a_value(text: str) -> None:
    with pytest.raises(UsageError, match="write NAME=VALUE"):
        values({}, text)


def test_a_pipeline_that_another_one_calls_is_not_meant_without_its_name(tmp_path: Path) -> None:
    """So a file with one pipeline, and those within it, needs no name."""
    path = tmp_path / "parts.py"
    path.write_text(
        "from flowyml import pipeline, step\n\n@step\ndef one() -> int:\n    return 1\n\n"
        "@pipeline\ndef part():\n    return one()\n\n@pipeline\ndef whole():\n    return part()\n"
    )
    assert load(str(path)).name == "whole"
    assert load(f"{path}:part").name == "part"
