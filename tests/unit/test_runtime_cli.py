"""A bundle's command line, on Pythons that have nothing installed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.hooks import PipelineHook
from flowyml.plan.bundle import build
from flowyml.plan.model import Constant, FromParameter, FromStep, Input, Parameter, Plan, Step
from flowyml.runtime import fork_main
from flowyml.runtime.cli import main
from flowyml.runtime.unpacking import unpack_bundle

pytestmark = pytest.mark.processes

CODE = """
import sys, dataclasses, logging

@dataclasses.dataclass
class Rows:
    count: int

def load(rows, unit="m"):
    print("loading", rows, unit)
    return Rows(rows)

def count(rows):
    assert type(rows).__name__ == "Rows", rows
    return rows.count

async def later():
    import asyncio
    await asyncio.sleep(0)
    return "later"

def boom(value):
    def deeper():
        raise ValueError("no " + value)
    try:
        deeper()
    except ValueError as error:
        raise RuntimeError("chained") from error

def leave():
    sys.exit("enough")

def arguments():
    return sys.argv[1:]

"""


class Noisy(PipelineHook):
    def on_step_start(self, step_name: str, inputs: Any) -> None:
        print("start", step_name, inputs)

    def on_error(self, step_name: str, error: BaseException) -> None:
        print("error", step_name, type(error).__name__, error)

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration: float) -> None:
        print("end", pipeline_name, run_id, status, duration)
        raise RuntimeError("hooks may fail")


PLAN = Plan(
    name="100% training",
    description="It counts 100% of the rows.",
    steps=(
        Step(
            name="load", function="steps:load", outputs=("data",),
            inputs=(Input("rows", FromParameter("rows")), Input("unit", Constant("km"))),
        ),
        Step(name="count", function="steps:count", outputs=("n",), inputs=(Input("rows", FromStep("load", "data")),)),
        Step(name="later", function="steps:later", outputs=("x",)),
        Step(name="boom", function="steps:boom", outputs=("x",), inputs=(Input("value", FromParameter("word")),)),
        Step(name="leave", function="steps:leave"),
        Step(name="--arguments 'ü'", function="steps:arguments", outputs=("x",)),
        Step(name="broken", function="broken:f"),
    ),
    parameters=(Parameter(name="rows", schema={"type": "integer"}, default=3), Parameter(name="word", required=True)),
)  # fmt: skip
FILES = {"steps.py": CODE.encode(), "broken.py": b"import sys\ndef f(): ...\nimport flowyml_is_not_here\n"}


def pythons() -> list[str]:
    """Every Python that a bundle supports and that this machine has."""
    found = {sys.executable: sys.version_info[:2]}
    candidates = [*Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python"), *filter(None, map(shutil.which, NAMES))]
    for path in map(str, candidates):
        code = "import sys; print(*sys.version_info[:2])"
        printed = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False).stdout.split()
        version = tuple(map(int, printed))
        if version >= (3, 11) and version not in found.values():
            found[path] = version
    return list(found)


NAMES = ["python3.11", "python3.12", "python3.13", "python3.14"]


@pytest.fixture(autouse=True)
def _arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PLAN, files=FILES).write(tmp_path_factory.mktemp("bundle"))


def run(bundle: Path, *arguments: str, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    """With no site-packages, and without this process's environment variables for Python."""
    command = [python, "-I", "-S", str(bundle), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parts[-3])
def test_a_bare_python_is_enough(bundle: Path, python: str, tmp_path: Path) -> None:
    shown = run(bundle, "--help", python=python)
    assert shown.returncode == 0, shown.stderr
    assert "load(rows, unit) -> data" in shown.stdout
    loaded = run(bundle, "step", "load", "--artifacts", str(tmp_path), python=python)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    output = loaded.stdout.splitlines()[-1]
    assert loaded.stdout.startswith("loading 3 km\n")
    inputs = json.dumps({"rows": json.loads(output)["data"]})
    counted = run(bundle, "step", "count", "--inputs", inputs, "--artifacts", str(tmp_path), python=python)
    assert (counted.stdout, counted.stderr) == ('{"n": 3}\n', "")


def test_the_file_itself_is_a_command(bundle: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [str(bundle), "step", "later"], capture_output=True, text=True, env={"PATH": path}, check=False
    )
    assert done.stdout == '{"x": "later"}\n', done.stderr


def here(capsys: pytest.CaptureFixture[str], bundle: Path, *arguments: str) -> tuple[int | str | None, str, str]:
    """The exit code and the two outputs of a command in this process, which is quick."""
    try:
        code: int | str | None = main(unpack_bundle(bundle), bundle, arguments)
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_help_and_plan_show_steps_and_parameters(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(capsys, bundle, "plan") == (0, f"{PLAN.canonical.decode()}\n", "")
    _, shown, _ = here(capsys, bundle, "--help")
    for line in (
        "Pipeline '100% training'",
        "It counts 100% of the rows.",
        "  leave() -> nothing",
        "  rows = 3",
        "  word\n",
    ):
        assert line in shown


def test_a_name_that_means_something_to_argparse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(name="50% %(prog)s %(prog", steps=(Step(name="%s %(nope)d", function="m:f"),))
    _, shown, _ = here(capsys, build(plan).write(tmp_path), "--help")
    assert "Pipeline '50% %(prog)s %(prog'" in shown
    assert "  %s %(nope)d() -> nothing" in shown


def test_parameters_inputs_and_an_output_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"rows": 7}')
    out = tmp_path / "out.json"
    done = run(bundle, "step", "load", "--parameters", f"@{tmp_path}/p.json", "--output", str(out))
    assert done.stdout == "loading 7 km\n"
    assert set(json.loads(out.read_text())["data"]["$artifact"]) == {"url", "format", "sha256", "size", "type"}
    given = run(bundle, "step", "load", "--parameters", '{"rows": 7}', "--inputs", '{"rows": 8, "unit": "ft"}')
    assert given.stdout.startswith("loading 8 ft\n")


def test_a_failed_step_shows_the_users_frames_and_how_to_run_it_again(bundle: Path) -> None:
    arguments = ["step", "boom", "--parameters", '{"word": "it\'s"}']
    done = run(bundle, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        'Traceback (most recent call last):\n  File "steps.py", line 25, in boom\n    deeper()\n'
    )
    assert 'raise ValueError("no " + value)\nValueError: no it\'s' in done.stderr
    assert "flowyml/runtime" not in done.stderr
    again = done.stderr.rstrip().splitlines()[-1].strip()
    assert "step 'boom' of pipeline '100% training' failed. To run it again:" in done.stderr
    assert shlex.split(again) == ["python", "-I", str(bundle), *arguments[:-1], "…"], "a log is read by others"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("broken", 'File "broken.py", line 3, in <module>\n    import flowyml_is_not_here\nModuleNotFoundError'),
        ("boom", "ParameterError: step 'boom' needs the run parameter 'word', which has no value and no default."),
    ],
)
def test_failures_say_what_to_do(bundle: Path, step: str, message: str) -> None:
    done = run(bundle, "step", step)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["step", "nope"], "the pipeline has no step 'nope'; it has 'load', 'count'"),
        (["step", "count"], "step 'count' needs --inputs with 'rows' (output 'data' of step 'load')"),
        (["step", "load", "--inputs", '{"x": 1}'], "step 'load' has no input 'x'; it has 'rows', 'unit'"),
        (["step", "load", "--inputs", "{"], "--inputs: Expecting property name"),
        (["step", "load", "--inputs", "@/nope"], "--inputs: [Errno 2] No such file"),
        (["step", "load", "--parameters", '{"x": 1}'], "the pipeline has no parameter 'x'; it has 'rows', 'word'"),
        (["hook", "on_error", "--arguments", "[]"], "takes --arguments as a JSON list: [step_name, error]"),
    ],
)
def test_wrong_arguments_are_exit_code_2(
    bundle: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = here(capsys, bundle, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_the_users_modules_see_no_arguments_and_odd_names_work(bundle: Path) -> None:
    assert run(bundle, "step", "--", "--arguments 'ü'").stdout == '{"x": []}\n'
    assert run(bundle, "step", "--step=--arguments 'ü'").stdout == '{"x": []}\n'


def test_an_answer_for_the_process_that_asked(bundle: Path, tmp_path: Path) -> None:
    """With ``--answer`` failures stand in a file too, for launchers."""
    answer = tmp_path / "answer.json"
    done = run(bundle, "step", "later", "--answer", str(answer))
    assert (done.returncode, done.stdout, json.loads(answer.read_text())) == (0, "", {"outputs": {"x": "later"}})
    done = run(bundle, "step", "leave", "--answer", str(answer))
    failure = json.loads(answer.read_text())["failure"]
    assert (failure["kind"], failure["names"][0]) == ("step", "StepError")
    assert done.returncode == 1
    assert failure["traceback"] in done.stderr


def test_hooks_fire_here_too(tmp_path: Path) -> None:
    import cloudpickle

    plan = Plan(name="p", steps=PLAN.steps, parameters=PLAN.parameters, hooks=("Noisy",))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        hooks = cloudpickle.dumps((Noisy(),))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    bundle = build(plan, files=FILES, objects={"hooks": hooks}).write(tmp_path)
    done = run(bundle, "step", "boom", "--inputs", '{"value": "x"}')
    assert done.stdout == "start boom {'value': 'x'}\nerror boom RuntimeError chained\n"
    done = run(bundle, "hook", "on_pipeline_end", "--arguments", '["p", "r", "FAILED", 1.5]')
    assert (done.returncode, done.stdout) == (0, "end p r FAILED 1.5\n")
    assert "Hook Noisy.on_pipeline_end failed; the run goes on." in done.stderr
    done = run(bundle, "hook", "on_error", "--arguments", '["s", "by hand"]')
    assert done.stdout == "error s StepError by hand\n"


def test_hooks_that_cannot_be_loaded_do_not_stop_a_step(tmp_path: Path) -> None:
    bundle = build(PLAN, files=FILES, objects={"hooks": b"cnowhere\nHook\n."}).write(tmp_path)
    done = run(bundle, "step", "later")
    assert (done.returncode, done.stdout) == (0, '{"x": "later"}\n')
    assert "The hooks of pipeline '100% training' cannot be loaded; the run goes on without them." in done.stderr


def test_a_parameter_that_looks_like_a_reference_is_just_a_parameter(bundle: Path, tmp_path: Path) -> None:
    """A user who may start runs with parameters of their choice cannot have a worker read files."""
    reference = {
        "$artifact": {"url": f"file://{tmp_path}/x.pkl", "format": "pickle", "sha256": "", "size": 0, "type": ""}
    }
    done = run(bundle, "step", "boom", "--parameters", json.dumps({"word": reference}))
    assert 'can only concatenate str (not "dict") to str' in done.stderr


@pytest.mark.parametrize("rows", ["3", {"$artifact": {}}])
def test_a_parameter_of_another_type_than_declared(bundle: Path, rows: object) -> None:
    """Of a file that is called by hand, or of an engine's form."""
    done = run(bundle, "step", "load", "--parameters", json.dumps({"rows": rows}))
    assert f"ParameterError: Parameter 'rows' of the run must be of type integer, not {rows!r}" in done.stderr


def test_an_old_python_says_which_one_is_needed(bundle: Path) -> None:
    """Also where it is to start a process that steps are forked from."""
    candidates = [*map(str, Path.home().glob(".pyenv/versions/3.[89].*/bin/python")), "/usr/bin/python3.9"]
    old = next((path for path in candidates if os.access(path, os.X_OK)), None)
    if old is None:
        pytest.skip("this machine has no old Python")
    for words in ([str(bundle), "--help"], [fork_main.__file__, "3", "4"]):
        done = subprocess.run([old, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("This bundle needs Python 3.11 or newer; this is 3.")
