"""What commands print at the width of a terminal, and where there is none."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from flowyml.cli import main
from flowyml.cli.output import Output
from flowyml.graph.text import width
from tests.unit.commands import flowyml, on_a_terminal

pytestmark = pytest.mark.usefixtures("train")


def test_runs_on_a_terminal_are_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("odd.py").write_text(
        "from flowyml import Pipeline, step\n@step(outputs=['value'])\ndef one() -> int:\n    return 1\n"
        "p = Pipeline('a pipeline with quite a long name 日本語').add_step(one)\n"
    )
    flowyml("run", "odd.py")
    flowyml("run", "train.py", "-p", "label=fail", "--run-id", "mine")
    for columns in (40, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = on_a_terminal("runs")
        assert len(lines) == 3
        assert max(map(width, lines)) <= columns
        assert lines[1].split()[:3] == ["mine", "training", "FAILED"]
        assert re.match(r"[0-9a-f]{8}  a pipeli.* COMPLETED ", lines[2])
        assert ("TOOK" in lines[0]) == (columns >= 80)


@pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")
def test_tables_on_a_narrow_terminal_break_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    flowyml("schedule", "create", "train.py", "daily", "03:00", "--timezone", "Europe/Berlin")
    flowyml("run", "train.py", "--run-id", "a-run-with-quite-a-long-name")
    for columns in (80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        texts = {}
        for words in ("schedule list", "backends", "prune --dry-run --older-than 0s"):
            lines = on_a_terminal(*words.split())
            assert [line for line in lines if width(line) > columns and " " in line.strip()] == [], words
            texts[words] = " ".join(" ".join(lines).split())
        assert "not running" in texts["backends"]
        assert re.search(r"03:00:00 CES?T", texts["schedule list"])
        assert re.search(r"a-r.* 20\d\d-\d\d-\d\d .*\d+ B", texts["prune --dry-run --older-than 0s"])
    assert "schedule cron 0 3 * * * Europe/Berlin, next 20" in texts["schedule list"]
    assert "Step timeout airflow yes, kubeflow partly" in texts["backends"]


def test_a_long_name_makes_only_its_own_row_long(capsys: pytest.CaptureFixture[str]) -> None:
    Output(shared=True).table(("STEP", "STATUS"), [("x" * 200, "FAILED"), ("short", "COMPLETED")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [f"{'x' * 200}  FAILED", f"{'short':60}  COMPLETED"], "nothing is cut"


def test_artifacts_on_a_terminal_are_whole_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("odd.py").write_text(
        "from typing import Annotated\nfrom flowyml import Pipeline, step\n"
        "@step(outputs=['quality_of_the_model'])\ndef evaluate() -> Annotated[dict, 'metrics']:\n"
        "    return {'accuracy': 0.91, 'area': 0.83}\n"
        "p = Pipeline('p').add_step(evaluate)\n"
    )
    flowyml("run", "odd.py", "--run-id", "mine")
    for columns in (40, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = on_a_terminal("artifacts", "mine")
        assert max(map(width, lines)) <= columns
        text = " ".join(" ".join(lines).split())
        assert "evaluate.quality_of_the_model metrics" in text
        assert ("DIGEST" in text) == (columns == 120)
        assert columns == 120 or "metrics, 29 B, accuracy=0.91, area=0.83" in text


@pytest.mark.parametrize("words", ["import airflow", "migrate"])
def test_the_text_of_help_is_as_wide_as_the_terminal(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line but the last of a paragraph has no room for the first word of the next."""
    columns = 60
    monkeypatch.setenv("COLUMNS", str(columns))
    main([*words.split(), "--help"])
    text = capsys.readouterr().out.partition("╭")[0].partition("Usage:")[2]
    for paragraph in re.split(r"\n\s*\n", text)[1:]:
        lines = paragraph.strip("\n").split("\n")
        for line, following in pairwise(each.rstrip() for each in lines):
            assert len(f"{line} {following.split()[0]}") > columns - 2, paragraph
