"""What steps log is in the log of the run, with its level, without any set-up and through every process."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flowyml.core.logs import level_of, levels_here, parts
from tests.unit.commands import python

SCRIPT = """
import logging, sys
from flowyml import get_logger, pipeline, step
from flowyml.orchestrators import LocalOrchestrator

log = logging.getLogger("team")

@step
def make():
    get_logger().info("from the step")
    get_logger().error("two\\nlines")
    log.info("of a module")
    log.debug("in detail")
    logging.getLogger("httpx").info("HTTP Request: GET")
    logging.getLogger("botocore.credentials").info("Found credentials in environment variables.")
    return 1

@pipeline
def logging_():
    return make()

if __name__ == "__main__":
    if "set-up" in sys.argv:
        logging.basicConfig(level=logging.INFO)
        log.setLevel(logging.DEBUG)
    if "submit" in sys.argv:
        run = logging_.submit(run_id="r").wait_for_completion(2400, 0.1)
    else:
        LocalOrchestrator(workers=sys.argv[1]).execute(logging_, "r", {})
        run = LocalOrchestrator().attach("r")
    for line in run.logs():
        print(line.level, line.message)
"""

STEPS = ["INFO from the step", "ERROR two", "ERROR lines"]
MODULES = ["INFO of a module"]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "logs.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, *arguments: str) -> tuple[list[str], list[str]]:
    home = script.parent / "-".join(("home", *arguments))
    done = python(script.parent, str(script), *arguments, FLOWYML_HOME=str(home))
    return done.out.splitlines(), done.err.splitlines()


def test_in_threads_a_users_logging_is_left_alone(script: Path) -> None:
    logged, shown = run(script, "threads")
    assert logged == STEPS
    assert shown == ["INFO: from the step", "ERROR: two", "lines"]


@pytest.mark.processes
@pytest.mark.parametrize("how", ["processes", "submit"])
def test_other_processes_keep_info_and_levels(script: Path, how: str) -> None:
    logged, shown = run(script, how)
    assert logged == STEPS + MODULES
    assert not any("HTTP Request" in line or "\x1e" in line for line in shown)
    if how == "processes":
        assert shown == ["INFO: from the step", "ERROR: two", "ERROR: lines", "INFO: of a module"]


@pytest.mark.processes
def test_levels_of_the_main_block_hold_elsewhere(script: Path) -> None:
    logged, _ = run(script, "submit", "set-up")
    assert logged == [*STEPS, *MODULES, "DEBUG in detail"]


SET_UP = """
import logging, logging.config
from flowyml import get_logger, pipeline, step

logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s")
logging.addLevelName(25, "NOTICE")
logging.addLevelName(30, "\\x1b[33mWARNING")
own = logging.getLogger("own")
own.propagate = False
own.addHandler(logging.StreamHandler())

@step
def make() -> int:
    get_logger().error("bad")
    logging.getLogger("team").warning("it rains")
    logging.getLogger("team").log(25, "noted")
    own.error("two\\nlines")
    return 1

@pipeline
def set_up():
    return make()
"""


@pytest.mark.processes
@pytest.mark.parametrize("fork", ["1", "0"])
def test_levels_stay_where_a_module_sets_logging_up(tmp_path: Path, fork: str) -> None:
    (tmp_path / "set_up.py").write_text(SET_UP)
    code = (
        "from set_up import set_up\nfrom flowyml.orchestrators import LocalOrchestrator\n"
        "if __name__ == '__main__':\n"
        "    LocalOrchestrator(workers='processes').execute(set_up, 'r', {})\n"
        "    for line in LocalOrchestrator().attach('r').logs():\n        print(line.level, line.message)\n"
    )
    (tmp_path / "main.py").write_text(code)
    done = python(tmp_path, "main.py", FLOWYML_HOME=str(tmp_path / "home"), FLOWYML_FORK=fork)
    assert done.out.splitlines() == [
        "ERROR flowyml.steps|bad", "WARNING team|it rains", "INFO team|noted", "ERROR two", "ERROR lines",
    ]  # fmt: skip
    assert "\x1e" not in done.err


def test_the_command_shows_what_is_logged(script: Path) -> None:
    home = str(script.parent / "home-command")
    done = python(script.parent, "-m", "flowyml", "run", str(script), FLOWYML_HOME=home)
    assert done.err.splitlines() == ["INFO: from the step", "ERROR: two", "lines", "INFO: of a module"]


@pytest.mark.parametrize("line", ["\x1eNONSENSE\x1ex", "\x1eWARNING x", "\x1e", "WARNING", ""])
def test_what_bears_no_mark_is_a_line(line: str) -> None:
    assert parts(line) == [(None, line)]
    assert level_of("stdout") == logging.INFO


def test_a_level_that_was_set_first_is_kept_and_records_are_shown(tmp_path: Path) -> None:
    script = (
        "import logging; logging.getLogger('flowyml.steps').setLevel(logging.ERROR);"
        "from flowyml import get_logger; get_logger().warning('quiet'); get_logger().error('loud')"
    )
    done = python(tmp_path, "-c", script)
    assert (done.out, done.err) == ("", "ERROR: loud\n")


def test_levels_of_users_loggers_travel_whatever_they_are_called() -> None:
    names = {"flowyml.steps": logging.ERROR, "flowyml_project": logging.DEBUG, "flowyml.local": logging.DEBUG}
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name, level in names.items():
            logging.getLogger(name).setLevel(level)
        levels = levels_here()
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    assert [levels.get(name) for name in names] == [logging.ERROR, logging.DEBUG, None]
