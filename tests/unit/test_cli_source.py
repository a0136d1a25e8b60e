"""From a command line to a call, to a pipeline (FILE[:NAME]), to parameters (-p NAME=VALUE), and to a run by its id."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml.cli import main
from flowyml.cli.app import read
from flowyml.cli.errors import UsageError
from flowyml.cli.finding import find_run
from flowyml.cli.source import load, read_parameters, read_values
from flowyml.core.errors import ParameterError, PlanError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.orchestrators import Orchestrator
from flowyml.plan.model import Parameter, Plan, Step
from flowyml.plan.parameters import check_values
from tests.unit.commands import flowyml, python

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


RUN_AT_ONCE = "from flowyml import Pipeline, step\n@step\ndef one(): ...\nPipeline('p').add_step(one).run()\n"


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        (TWO, "train.py", r"several pipelines\. Choose one of: train.py:first, train.py:second\."),
        (TWO, "train.py:third", r"no pipeline 'third'\. Choose one of: train.py:first"),
        (RUN_AT_ONCE, "train.py", "no pipeline at module level. Loading stopped at the line that runs a pipeline"),
        ("x = 1\n", "train.py", "no pipeline at module level"),
    ],
    ids=["several", "another name", "run at once", "none"],
)
def test_a_file_that_does_not_say_which_pipeline(text: str, reference: str, message: str) -> None:
    write(text)
    with pytest.raises(UsageError, match=message):
        load(reference)
    if text == TWO:
        assert load("train.py:second").name == load("train.py:the second").name == "the second"


def test_a_bundle() -> None:
    path = load(write(ONE)).bundle().write("dist")
    assert load(str(path)).name == "only"
    assert load(f"{path}:only").name == "only"
    with pytest.raises(UsageError, match="contains the pipeline 'only', not 'other'"):
        load(f"{path}:other")
    with pytest.raises(UsageError, match=r"gone\.pyz does not exist"):
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
    ],
)
def test_a_file_that_cannot_be_loaded_shows_its_own_frames(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(write(text))
    assert "train.py" in caught.value.detail
    assert "cli/source.py" not in caught.value.detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from flowyml import Pipeline\nPipeline(1)", "The name of a pipeline must be a string"),
        (
            "from flowyml import step\n@step(timeout=-1)\ndef f(): ...",
            "step 'f': timeout=-1 must be a number of seconds",
        ),
        (
            "from flowyml import Cache, step\n@step(cache=Cache(ttl='7x'))\ndef f(): ...",
            r"Cache\(ttl='7x'\) must be a number",
        ),
        ("from flowyml import pipeline\n@pipeline(nme='x')\ndef f(): ...", "pipeline has no option 'nme'"),
    ],
)
def test_a_mistake_in_a_decorator_is_one_line(text: str, message: str) -> None:
    done = flowyml("run", write(text))
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert re.match(rf"error: {message}.*\(train.py, line 2\)$", done.err)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gone.py", "gone.py does not exist"),
        ("gone.module:x", "'gone.module' is neither a file nor a module"),
        ("gone", "'gone' is neither a file nor a module"),
        ("", "'' is neither a file nor a module"),
        ("a/b", "a/b does not exist"),
        ("/tmp", "/tmp is a folder. Name a Python file in it"),
    ],
)
def test_what_is_not_there(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(reference)


def test_a_package_that_runs_a_pipeline_when_it_is_imported_is_refused() -> None:
    write(f"{ONE}only.run()", "running/__init__.py")
    write(ONE, "running/training.py")
    with pytest.raises(UsageError, match=r"running\.training: importing its package runs a pipeline\. Move that out"):
        load("running.training")


def test_a_file_whose_name_is_not_one_of_python_runs_in_processes_too(tmp_path: Path) -> None:
    write(ONE.replace("@step", "@step(timeout=600)"), "01_train-it.py")
    assert "one = 1" in python(tmp_path, "-m", "flowyml", "run", "01_train-it.py").out


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


class Listed:
    """An engine that knows runs by their whole job ids, as all do."""

    def __init__(self, *ids: tuple[str, str]) -> None:
        facts: Any = {"pipeline": "p", "status": ExecutionStatus.RUNNING, "raw_status": "r"}
        self.found = [Run(job_id=job_id, run_id=run_id, **facts) for job_id, run_id in ids]

    def get_run(self, job_id: str) -> Run:
        for run in self.found:
            if run.job_id == job_id:
                return run
        raise RunNotFoundError(job_id)

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return self.found[:limit]


UUID, OTHER_UUID = "0af1c2d3-0000-4000-8000-000000000001", "0af1c2d3-1111-4000-8000-000000000002"
LOCAL = "training-20260131-120000-1f3a9c2e"


def job_of(engine: Listed, given: str) -> str:
    return find_run(cast(Orchestrator, engine), given).job_id


@pytest.mark.parametrize("given", [UUID, UUID[:8], UUID[:13], LOCAL, "1f3a9c2e"])
def test_the_beginning_of_a_uuid_stands_for_its_run(given: str) -> None:
    assert job_of(Listed((UUID, LOCAL)), given) == UUID


@pytest.mark.parametrize("given", [UUID[:7], UUID[1:], "training-20260131"])
def test_what_is_no_id_and_not_the_beginning_of_a_uuid_stands_for_none(given: str) -> None:
    with pytest.raises(RunNotFoundError):
        job_of(Listed((UUID, LOCAL), (LOCAL, LOCAL)), given)


def test_a_beginning_that_two_runs_share_is_refused() -> None:
    with pytest.raises(UsageError, match=f"matches 2 runs. Give the job id of one: {UUID}, {OTHER_UUID}"):
        job_of(Listed((UUID, "a"), (OTHER_UUID, "b")), UUID[:8])
    assert job_of(Listed((UUID, "a"), (OTHER_UUID, "b")), UUID[:10]) == UUID


LINES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "run train.py:two --on prefect -p rows=5 -plabel=x --run-id=a -d --timeout 1.5 --json", "run",
        {
            "file": "train.py:two", "on": "prefect", "parameters": ["rows=5", "label=x"], "run_id": "a",
            "detach": True, "timeout": 1.5, "as_json": True,
        },
    ),
    ("compile --to=plan a.py -o flow.py", "compile_", {"file": "a.py", "to": "plan", "output": Path("flow.py")}),
    ("retry job-1 --step load --step train[3]", "retry", {"job": "job-1", "step": ["load", "train[3]"]}),
    ("runs -n5", "runs", {"limit": 5}),
    ("schedule list --on prefect", "list_", {"on": "prefect"}),
    ("backends --json", "backends", {"as_json": True}),
    ("backends show local", "show", {"name": "local"}),
    ("migrate a b --check", "migrate", {"paths": ["a", "b"], "check": True}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "function", "given"), LINES)
def test_a_line_is_one_call(line: str, function: str, given: dict[str, Any]) -> None:
    call = read(line.split())
    assert isinstance(call, partial)
    assert call.func.__name__ == function
    values = {name: parameter.default for name, parameter in inspect.signature(call.func).parameters.items()}
    assert {name: value or None for name, value in call.keywords.items()} == {
        name: value or None for name, value in {**values, **given}.items()
    }


@pytest.mark.processes
def test_a_shell_completes_options(tmp_path: Path) -> None:
    script = python(tmp_path, "-m", "flowyml", "--show-completion", SHELL="/bin/bash").out
    (tmp_path / "complete.sh").write_text(script)
    typed = "COMP_WORDS=(flowyml runs --pip) COMP_CWORD=2; _flowyml_completion flowyml; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"PATH={Path(sys.executable).parent}:$PATH; source complete.sh; {typed}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "--pipeline\n"


def test_completion_names_the_shells_that_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/ash")
    assert main(["--show-completion"]) == 2
    assert capsys.readouterr().err.endswith("$SHELL is ash. Set it to bash, fish or zsh for completion.\n")


def test_the_usual_line_imports_neither_rich_nor_pydantic(tmp_path: Path) -> None:
    text = "from flowyml import pipeline, step\n@step\ndef one(): ...\n@pipeline\ndef p():\n    return one()\n"
    (tmp_path / "train.py").write_text(text)
    code = (
        "import sys; from flowyml.cli import main; main(['compile', 'train.py', '--to', 'plan']);"
        "print([m for m in ('rich', 'pydantic', 'prefect', 'asyncio') if m in sys.modules], file=sys.stderr)"
    )
    assert python(tmp_path, "-c", code).err.strip() == "[]"
