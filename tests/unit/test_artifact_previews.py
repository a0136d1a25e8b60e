"""Files, folders, figures and models as outputs: each comes back, and what people see of it is small and safe."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from flowyml import Pipeline, report, step
from flowyml.artifacts import formats as formats_module
from flowyml.artifacts import is_reference, open_store, pack, unpack
from flowyml.artifacts.folders import files_here
from flowyml.artifacts.formats import Format
from flowyml.artifacts.previews import preview_of
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError
from flowyml.plan.kinds import kind_of, kinds_annotated
from flowyml.runtime.reporting import MOST_FACTS, fact, reported, reports
from flowyml.runtime.secrets import Mask


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def packed(value: Any, store: Store, **about: Any) -> dict[str, Any]:
    preview = preview_of(value, store, lambda: "run/step/1/out-{content}", **about)
    found = pack(value, store, key="run/step/1/out-{content}", preview=preview)
    reference: dict[str, Any] = found["$artifact"] if is_reference(found) else {"value": found}
    return reference


def back(reference: dict[str, Any], store: Store) -> Any:
    return unpack({"$artifact": reference}, store)


def test_a_file_comes_back_with_its_name_and_its_content(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "Über den Wald.CSV"
    path.write_bytes(b"a,b\n\x00\xff")
    reference = packed(path, store)
    assert (reference["kind"], reference["format"], reference["name"]) == ("file", "file", path.name)
    path.unlink()
    with files_here():
        found = back(reference, store)
        assert (found.name, found.read_bytes()) == ("Über den Wald.CSV", b"a,b\n\x00\xff")
        found.write_text("a consumer changes its own copy")
        assert back(reference, store).read_bytes() == b"a,b\n\x00\xff"
    assert not found.exists()


def test_a_folder_comes_back_and_is_the_same_bytes_whenever_it_was_written(store: Store, tmp_path: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        root = tmp_path / name / "model"
        (root / "deep" / "empty").mkdir(parents=True)
        for part in sorted(("deep/weights.bin", "config.json", "ä.txt"), reverse=name == "first"):
            (root / part).write_text(part)
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o700 if name == "first" else 0o755)
        reference = packed(root, store)
        digests.add(reference["sha256"])
    assert len(digests) == 1
    assert reference["kind"] == "folder"
    assert reference["metadata"] == {"files": 4}
    with files_here():
        found = back(reference, store)
        assert found.name == "model"
        names = sorted(each.relative_to(found).as_posix() for each in found.rglob("*"))
        assert names == ["config.json", "deep", "deep/empty", "deep/weights.bin", "run.sh", "ä.txt"]
        assert (found / "deep/weights.bin").read_text() == "deep/weights.bin"
        assert (found / "run.sh").stat().st_mode & 0o100
        assert not (found / "config.json").stat().st_mode & 0o100


def test_a_folder_with_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "model"
    root.mkdir()
    (root / "latest").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="'latest', a link"):
        packed(root, store)


def test_a_path_to_nothing_stays_a_path(store: Store) -> None:
    assert back(packed(Path("not/there"), store), store) == Path("not/there")


@pytest.mark.parametrize(
    "value",
    [{"b": np.arange(6.0).reshape(2, 3), "a": np.array([1, 2], "int32")}, {"x": np.zeros((0, 3), bool)}],
)
def test_arrays_by_name_are_safetensors(store: Store, value: dict[str, Any]) -> None:
    reference = packed(value, store)
    found = back(reference, store)
    assert reference["format"] == "safetensors"
    assert list(found) == list(value)
    for name, array in value.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_arrays_that_safetensors_would_change_are_pickled(store: Store) -> None:
    for value in ({"a": np.array(1.0)}, {"a": np.array([1], ">i4")}, {"a": np.array(["x"])}):
        reference = packed(value, store)
        assert reference["format"] == "pickle"
        found = back(reference, store)
        assert found["a"].dtype == value["a"].dtype


def checkpoint(torch: Any) -> dict[str, Any]:
    """What is left of a training, as torch's own tutorials keep it."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "losses": [0.5, None]}


def test_tensors_need_no_pickle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    left = checkpoint(torch)
    for value in (
        torch.arange(6).reshape(2, 3), torch.tensor(1.5), torch.empty(0, 3), torch.ones(2, dtype=torch.bfloat16),
        torch.eye(3).to_sparse(), torch.nn.Parameter(torch.ones(2)), (torch.ones(1), 1), left["model"], left,
    ):  # fmt: skip
        reference = packed(value, store)
        assert reference["format"] == "torch"
        found = back(reference, store)
        assert type(found) is type(value)
        torch.testing.assert_close(found, value, rtol=0, atol=0)
        assert getattr(found, "requires_grad", None) == getattr(value, "requires_grad", None)
    assert back(packed(left["model"], store), store)._metadata == left["model"]._metadata


def test_what_torch_would_not_read_again_is_pickled(store: Store) -> None:
    torch = pytest.importorskip("torch")
    marked = torch.ones(2)
    marked.of = Path("a/file")
    again: list[Any] = [torch.ones(1), {1, 2}]
    again.append(again)
    for value in (marked, {"weights": torch.ones(1), "of": Path("a/file")}, again, torch.nn.Linear(1, 1)):
        reference = packed(value, store)
        assert reference["format"] == "pickle"
        assert type(back(reference, store)) is type(value)
    assert packed(torch.nn.Linear(1, 1), store)["kind"] == "model"


@pytest.mark.slow
def test_a_figure_of_matplotlib_comes_back_and_has_a_picture(store: Store) -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    figure = figure_module.Figure(figsize=(50, 20))
    figure.subplots().plot([1, 3, 2])
    reference = packed(figure, store)
    assert reference["kind"] == "figure"
    picture = reference["picture"]
    data = Path(picture["url"].removeprefix("file://")).read_bytes()
    assert picture["media"] == "image/png"
    assert len(data) == picture["size"]
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") <= 1000
    assert back(reference, store).axes[0].lines[0].get_ydata().tolist() == [1, 3, 2]


def test_a_figure_of_plotly_is_json_and_has_a_page(store: Store) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figure = graph_objects.Figure(graph_objects.Scatter(y=[1, 3, 2]))
    reference = packed(figure, store)
    assert (reference["kind"], reference["format"]) == ("figure", "plotly")
    page = Path(reference["picture"]["url"].removeprefix("file://")).read_text()
    assert reference["picture"]["media"] == "text/html"
    assert "<html>" in page
    assert 'src="http' not in page
    assert back(reference, store) == figure


def test_the_head_of_a_table_is_short(store: Store) -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    columns = {f"c{number}": list(range(1000)) for number in range(20)} | {"text": ["x" * 5000] * 1000}
    for table in (pandas.DataFrame(columns), polars.DataFrame(columns), arrow.table(columns)):
        reference = packed(table, store)
        assert (reference["kind"], reference["metadata"]) == ("table", {"rows": 1000, "columns": 21})
        head = reference["head"]
        assert head["columns"] == [f"c{number}" for number in range(12)]
        assert head["more_columns"] == 9
        assert head["rows"] == [[str(number)] * 12 for number in range(10)]
    rows = [{"name": "a|<b>", "score": 0.123456789}, {"name": None}, {"name": -2.0, "score": 1e300}]
    assert packed(rows, store, kind="table")["head"] == {
        "columns": ["name", "score"],
        "rows": [["a|<b>", "0.123457"], ["", ""], ["-2.0", "1e+300"]],
    }
    hidden = packed(pandas.DataFrame(columns), store, kind="data")
    assert "head" not in hidden
    assert "metadata" not in hidden


def test_a_face_has_a_bound(store: Store) -> None:
    facts = {f"{number}-{'n' * 40}": "v" * 500 for number in range(50)}
    table = [{f"column {'c' * 30} {number}": "ä" * 200 for number in range(12)} for _ in range(10)]
    for value in ("x", table):
        reference = packed(value, store, kind="table" if value is table else "", facts=facts)
        assert len(json.dumps(reference)) < 10_000
        assert reference["kind"] in ("text", "table")


def test_plain_values_without_facts_stay_what_they_were(store: Store) -> None:
    for value in (None, 1, "short", [1], {"auc": 0.9}, {"a": "b"}):
        assert packed(value, store) == {"value": value}
    for value in (None, 1, "short", {"auc": 0.9}):
        reference = packed(value, store, facts={"rows": 3})
        assert reference["metadata"]["rows"] == 3
        assert back(reference, store) == value


def test_what_is_shown_has_nothing_that_databases_refuse(store: Store) -> None:
    """PostgreSQL takes no character zero, and nothing takes half of a surrogate pair."""
    hostile = "zero \0, half \ud800"
    text = packed(hostile, store, facts={"why": 1})
    table = packed([{hostile: hostile}], store, kind="table")
    metrics = packed({hostile: 1.5}, store, kind="metrics", facts={"why": 1})
    for reference in (text, table, metrics):
        shown = json.dumps([reference["metadata"], reference.get("head")], ensure_ascii=False)
        assert "\\u0000" not in shown
        assert shown.encode()
        assert "zero \\\\x00, half \\\\ud800" in shown
    assert back(text, store) == hostile


def test_a_value_that_breaks_when_it_is_shown_is_kept(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    reference = packed(5, store, kind="array")
    assert back(reference, store) == 5
    assert "cannot be shown: AttributeError" in caplog.text


def test_secrets_are_masked_in_what_is_shown_before_a_long_text_is_cut(store: Store) -> None:
    secret = "hunter2-" * 100

    def mask(text: str) -> str:
        return text.replace(secret, "***")

    frame = pytest.importorskip("pandas").DataFrame({secret: [f"key {secret}"]})
    with reports(["table"]):
        report(dsn=f"x:{secret}@y")
        of_frame = packed(frame, store, facts=reported("table", mask), mask=mask)
    of_rows = packed([{secret: f"key {secret}"}], store, kind="table", facts={"dsn": f"x:{secret}@y"}, mask=mask)
    for reference in (of_frame, of_rows):
        assert "hunter2" not in json.dumps(reference)
        assert (reference["head"]["rows"], reference["metadata"]["dsn"]) == ([["key ***"]], "x:***@y")


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_reported_number_may_be_a_secret() -> None:
    with reports(["model"]):
        report(pin=12345678, floating=12345678.0, text="12345678", rows=3, good=True, none=None)
        shown = reported("model", Mask(["12345678"]).text)
    assert shown == {"pin": "***", "floating": "***.0", "text": "***", "rows": 3, "good": True, "none": None}


def test_what_is_reported_is_small_plain_and_of_one_step() -> None:
    report(rows=1)  # outside of a step, nothing happens
    with reports(["model", "scores"]):
        report(rows=np.int64(3), auc=np.float32(0.5), nan=math.nan, huge=2**70, deep=[1, {"a": 2}], bad=NoText())
        report("model", auc=0.9, note="n" * 10_000)
        found = reported("model")
        assert found.pop("note") == "n" * 499 + "…"
        assert found == {
            "rows": 3, "auc": 0.9, "nan": "nan", "huge": str(2**70), "deep": "[1, {'a': 2}]",
            "bad": "(no text: RuntimeError)",
        }  # fmt: skip
        assert reported("scores")["auc"] == 0.5
        with reports(["model"]):
            assert reported("model") == {}
        report(**{f"f{number}": number for number in range(1000)})
        assert len(reported("scores")) == MOST_FACTS
    assert reported("model") == {}


@pytest.mark.parametrize(("outputs", "has"), [(["model"], "it has 'model'"), ([], "it has none")])
def test_facts_of_an_output_that_the_step_does_not_have_are_a_warning(
    outputs: list[str], has: str, caplog: pytest.LogCaptureFixture
) -> None:
    with reports(outputs):
        report("modle", auc=0.9)
        report("# Sales")
    assert f"report(): the step has no output 'modle'; {has}. The facts are not kept." in caplog.text
    assert "no output '# Sales'" in caplog.text


@pytest.mark.slow
def test_models_are_known_by_their_classes() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    assert kind_of(linear_model.LogisticRegression()) == "model"
    assert kinds_annotated(linear_model.LogisticRegression, ("a",)) == {"a": "model"}


@step
def annotated() -> Annotated[list[dict[str, int]], "table"]:
    return [{"a": 1}]


def test_the_plan_says_the_kind_and_a_plan_without_one_keeps_its_schema() -> None:
    @step
    def plain() -> int:
        return 1

    with_kind = Pipeline("kinds").add_step(annotated).compile()
    assert with_kind.by_name["annotated"].kinds == {"annotated": "table"}
    assert with_kind.schema_version > Pipeline("none").add_step(plain).compile().schema_version


class Odd:
    def __init__(self, value: int) -> None:
        self.value = value


def _write_odd(value: Odd, file: Any) -> None:
    file.write(str(value.value).encode())


def _read_odd(path: Path) -> Odd:
    return Odd(int(path.read_text()))


ODD = Format("ignored", ".odd", _write_odd, _read_odd, takes=lambda value: isinstance(value, Odd))
SHOUTED = Format("ignored", ".ODD", _write_odd, _read_odd, takes=lambda value: isinstance(value, Odd))
STRAY = Format("json", ".json", _write_odd, _read_odd, takes=lambda value: True)


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def plug(**points: str) -> None:
        found = [EntryPoint(name, value, formats_module.ENTRY_POINTS) for name, value in points.items()]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)
        formats_module._plug_ins.cache_clear()

    monkeypatch.setitem(sys.modules, "odd_formats", sys.modules[__name__])
    yield plug
    formats_module._plug_ins.cache_clear()


def test_formats_plug_in(
    store: Store, plug_ins: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "no")
    plug_ins(odd="odd_formats:ODD", json="odd_formats:STRAY", broken="odd_formats:no_such")
    reference = packed(Odd(7), store)
    assert reference["format"] == "odd"
    assert back(reference, store).value == 7
    assert packed({"a": 1}, store, facts={"b": 2})["format"] == "json"  # and not the stray of that name
    assert "'broken' of artifacts cannot be loaded" in caplog.text
    plug_ins()
    with pytest.raises(ArtifactError, match="not a reference to an artifact that can be read here"):
        back(reference, store)
    plug_ins(odd="odd_formats:SHOUTED")  # keys of artifacts have small letters alone
    shouted = packed(Odd(7), store)
    assert (shouted["url"].endswith(".odd"), back(shouted, store).value) == (True, 7)


class Refusing:
    """As an array of one number, of a library that fails."""

    size = 1

    def item(self) -> int:
        raise RuntimeError("no number")


class Growing(int):
    def __add__(self, other: int) -> Any:
        return "x" * 10_000

    __abs__ = __add__  # type: ignore[assignment]  # all operators fail alike


def test_no_fact_fails_its_step_or_is_larger_than_a_fact() -> None:
    assert fact(10**5000) == "(no text: ValueError)"
    assert fact(Refusing()) == "(no text: RuntimeError)"
    assert (fact(Growing(3)), type(fact(Growing(3)))) == (3, int)
    assert fact(2**70) == str(2**70)
