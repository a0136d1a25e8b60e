"""`flowyml migrate` reads projects of strangers: it runs nothing in them, follows no link, and ends."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.cli import main
from flowyml.migration.legacy.migrate import migrate
from flowyml.migration.legacy.notebooks import migrate_notebook
from flowyml.migration.legacy.pins import migrate_script, update_pins
from flowyml.migration.legacy.source import Unreadable

OLD = "from flowyml.core.pipeline import Pipeline\n"
NEW = "from flowyml import Pipeline\n"


def test_no_code_runs(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    work = f"open({str(flag)!r}, 'w')\n"
    (tmp_path / "project" / "flowyml").mkdir(parents=True)
    for name in ("flowyml/__init__.py", "flowyml/mine.py", "setup.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / "project" / name).write_text(
            work + OLD + "from flowyml.mine import x\nfrom flowyml.__main__ import x\n"
        )
    assert migrate([str(tmp_path / "project")]).changes
    assert not flag.exists()


def test_links_are_neither_read_nor_written_through(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    for name in ("secret.py", "requirements.txt"):
        (outside / name).write_text(OLD + "flowyml==0.9\n")
    before = {path: path.read_bytes() for path in outside.iterdir()}
    (project / "linked.py").symlink_to(outside / "secret.py")
    (project / "requirements.txt").symlink_to(outside / "requirements.txt")
    (project / "folder").symlink_to(outside)
    (project / "loop").symlink_to(project)
    assert main(["migrate", str(project), "--write"]) == 0
    assert not migrate([str(project)]).changes
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    assert (project / "linked.py").is_symlink()


def test_a_file_that_becomes_a_link_meanwhile_is_not_written(tmp_path: Path) -> None:
    file, victim = tmp_path / "old.py", tmp_path / "victim"
    file.write_text(OLD)
    victim.write_text(OLD)
    report = migrate([str(file)])
    file.unlink()
    file.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        report.write()
    assert victim.read_text() == OLD
    file.unlink()
    file.write_text(OLD + "# edited meanwhile\n")
    with pytest.raises(OSError, match="changed while it was read"):
        report.write()
    assert file.read_text() == OLD + "# edited meanwhile\n"


def test_what_is_written_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.py").write_text(OLD)
    report = migrate([str(tmp_path)])

    def full(number: int, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space"):
        report.write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.py": OLD}


def test_pipes_and_devices_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "old.py").write_text(OLD)
    assert [change.file.path.name for change in migrate([str(tmp_path)]).changes] == ["old.py"]
    assert migrate([str(tmp_path / "pipe.py")]).unreadable


@pytest.mark.parametrize(
    "code",
    [
        "x = " + "(" * 5_000 + ")" * 5_000,
        "x = " + "-" * 100_000 + "1",
        "x = " + "+".join(["1"] * 50_000),
        "x = " + "a.b()" + ".b()" * 50_000,
        "x = " + "a.b()" + ".b()" * 400,  # which only the rules nest too deeply for
        "x = " + " and ".join(["a"] * 20_000),  # which ends the process of libcst's parser
        "import a" + ".b" * 20_000,
        "if x:\n" + "".join(" " * depth + "if x:\n" for depth in range(1, 3_000)),
        "x = [" + "1, " * 500_000 + "]",
        "\0",
        "x = '\udcff'",
    ],
    ids=["parentheses", "minuses", "sum", "calls", "some calls", "ands", "dots", "blocks", "large", "null", "no text"],
)
def test_code_that_no_parser_likes_is_said_and_left(tmp_path: Path, code: str) -> None:
    file = tmp_path / "hostile.py"
    file.write_bytes((OLD + code + "\n").encode(errors="surrogateescape"))
    (tmp_path / "old.py").write_text(OLD)
    began = time.process_time()
    report = migrate([str(tmp_path)])
    assert time.process_time() - began < 30
    assert [path for path, _ in report.unreadable] == [str(file)]
    assert [change.file.path.name for change in report.changes] == ["old.py"]


@pytest.mark.parametrize("coding", ["rot13", "hex", "undefined", "no-such-thing", "utf-7"])
def test_an_encoding_that_is_no_text_is_not_decoded(tmp_path: Path, coding: str) -> None:
    file = tmp_path / "coded.py"
    file.write_text(f"# coding: {coding}\n{OLD}")
    report = migrate([str(file)])
    assert report.unreadable or coding == "utf-7"


def test_other_encodings_and_marks_are_kept(tmp_path: Path) -> None:
    files = [("a.py", "# coding: latin-1\n", "latin-1"), ("b.py", "", "utf-8-sig"), ("c.py", "", "utf-8")]
    for name, head, coding in files:
        (tmp_path / name).write_bytes((f"{head}{OLD}x = 'é'\r\n").encode(coding))
    migrate([str(tmp_path)]).write()
    for name, head, coding in files:
        assert (tmp_path / name).read_bytes() == (f"{head}{NEW}x = 'é'\r\n").encode(coding)


def test_long_lines_take_no_long_time() -> None:
    for line in (
        "flowyml" + "==1," * 50_000,
        "flowyml[" + "a" * 200_000,
        "'flowyml = {" * 20_000,
        "flowyml" + " " * 200_000,
    ):
        for style in ("requirements", "toml", "shell"):
            update_pins(line, style)  # type: ignore[arg-type]  # a text of a parameter
    for line in ("FAILED|" * 30_000, "\t" * 200_000 + "x", "FAILED |" + " " * 200_000):
        migrate_script(f"flowyml\n{line}", ["train"])
    cell = {"cell_type": "code", "source": [f"import flowyml\n%{'?' * 100_000}\n{' ' * 100_000}x\n"]}
    with pytest.raises(Unreadable):
        migrate_notebook(json.dumps({"cells": [cell]}))


def test_a_notebook_cannot_move_its_cells(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["import flowyml\n#flowyml-migrate-cell 7\n"]}]
    with pytest.raises(Unreadable, match="comment of this command"):
        migrate_notebook(json.dumps({"cells": cells}))


def test_names_and_lines_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\x1b]0;owned\x07.py").write_text(OLD + "x = '\x1b[2J'\n")
    (tmp_path / "b\x1b[2J.py").write_text("import flowyml\n(")
    assert main(["migrate", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
