"""Graphs as text: whatever the shape and the names, the drawing says what the plan says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.graph import mermaid, svg, terminal
from flowyml.graph.text import cut, width
from flowyml.plan.model import Constant, FromParameter, FromStep, Input, Parameter, Plan, Step

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    'a"]; b["x', "end", "<script>alert(1)</script>", "#quot;&amp;", "1. list", "- dash", "`code`", "**b** _i_",
    "日本語 ü", "a\\nb", "{{x}}", "|pipe|", "../../etc", "%% comment", "$$x$$", "x:::cls", "]]>",
    "'; DROP", "🙂" * 20, "n" * 200,
]  # fmt: skip


def plan_of(
    edges: Mapping[str, Iterable[str]], *, after: Mapping[str, Sequence[str]] = {}, name: str = "graph"
) -> Plan:
    steps = tuple(
        Step(
            name=step,
            function=f"m:{index}",
            outputs=(step,),
            inputs=tuple(Input(f"input_{n}", FromStep(start, start)) for n, start in enumerate(starts)),
            after=tuple(after.get(step, ())),
        )
        for index, (step, starts) in enumerate(edges.items())
    )
    return Plan(name=name, steps=steps)


def edges_of(plan: Plan) -> set[tuple[str, str]]:
    return {(start, step.name) for step in plan for start in step.upstream}


@st.composite
def graphs(draw: st.DrawFn, most: int = 9) -> dict[str, list[str]]:
    """Any directed acyclic graph of steps s0, s1, …: the steps before each."""
    count = draw(st.integers(1, most))
    return {f"s{end}": [f"s{start}" for start in range(end) if draw(st.integers(0, 2)) == 0] for end in range(count)}


def read_back(drawing: str) -> set[tuple[str, str]]:
    """Follow the lines of a drawing from box to box, as an eye would; of a tangle there is only a list."""
    if "╭" not in drawing:
        listed = [re.split(r"─ | +← ", line) for line in drawing.splitlines()]
        return {(start, line[1]) for line in listed if len(line) == 3 for start in line[2].split(", ")}
    rows = [f"{line:<400}" for line in drawing.splitlines()]
    boxes = {
        (row + 1, match.start(), match.end()): rows[row + 1][match.start() + 1 : match.end() - 1].strip()
        for row, line in enumerate(rows[:-1])
        for match in re.finditer(r"╭[─▼]{3,}╮", line)
        if rows[row + 1][match.start()] == "│" and rows[row + 2][match.start()] == "╰"
    }
    found = set()
    for (row, left, right), name in boxes.items():
        for column in range(left, right):
            if rows[row + 1][column] == "┬":
                found |= {(name, _box_at(boxes, end)) for end in _follow(rows, row + 2, column)}
    return found


OPEN = {
    "│": "ud", "─": "lr", "╭": "dr", "╮": "dl", "╰": "ur", "╯": "ul",
    "├": "udr", "┤": "udl", "┬": "dlr", "┴": "ulr", "┼": "udlr",
}  # fmt: skip
MOVES = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
BACK = {"u": "d", "d": "u", "l": "r", "r": "l"}


def _follow(rows: Sequence[str], row: int, column: int) -> set[tuple[int, int]]:
    ends, todo, seen = set(), [(row, column, "d")], set()
    while todo:
        row, column, way = todo.pop()
        if (row, column, way) in seen:
            continue
        seen.add((row, column, way))
        char = rows[row][column]
        if char == "▼":
            ends.add((row, column))
        elif char == "│" and way in "lr":  # a bridge
            todo.append((row, column + MOVES[way][1], way))
        else:
            assert BACK[way] in OPEN[char], (row, column, way, char)
            todo += [(row + MOVES[out][0], column + MOVES[out][1], out) for out in OPEN[char] if out != BACK[way]]
    return ends


def _box_at(boxes: Mapping[tuple[int, int, int], str], place: tuple[int, int]) -> str:
    row, column = place
    return next(name for (top, left, right), name in boxes.items() if top == row + 1 and left <= column < right)


@given(graphs())
@settings(max_examples=200)
@example({"a": [], "b": [], "c": ["a", "b"], "d": ["a", "b"]})
@example({"a": [], "b": ["a"], "c": ["b"], "d": ["c", "a"], "e": ["d", "a", "b"]})
def test_the_lines_of_a_terminal_drawing_are_those_of_the_plan(edges: dict[str, list[str]]) -> None:
    plan = plan_of(edges)
    drawing = terminal(plan, columns=400)
    assert read_back(drawing) == edges_of(plan), "\n" + drawing


@given(graphs(most=14))
@settings(max_examples=60)
def test_every_picture_holds_every_step_and_every_line(edges: dict[str, list[str]]) -> None:
    plan = plan_of(edges)
    picture = ElementTree.fromstring(svg(plan))
    assert sorted(_names(picture)) == sorted(step.name for step in plan)
    arrows = [path for path in picture.iter(f"{SVG}path") if path.get("marker-end")]
    assert len(arrows) == len(edges_of(plan))
    assert len(re.findall(r"-->|-\.->", mermaid(plan))) == len(edges_of(plan))


def _names(picture: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text") if text.get("class") == "name"]


def test_a_small_graph_is_drawn_like_this() -> None:
    plan = plan_of({"load": (), "clean": ("load",), "profile": ("load",), "train": ("clean", "profile")})
    assert terminal(plan) == (
        "      ╭───────╮\n"
        "      │ load  │\n"
        "      ╰───┬───╯\n"
        "    ╭─────┴──────╮\n"
        "╭───▼───╮   ╭────▼────╮\n"
        "│ clean │   │ profile │\n"
        "╰───┬───╯   ╰────┬────╯\n"
        "    ╰───╮   ╭────╯\n"
        "      ╭─▼───▼─╮\n"
        "      │ train │\n"
        "      ╰───────╯\n"
    )


def test_a_graph_that_is_too_wide_becomes_a_list() -> None:
    parts = [f"part_{index}" for index in range(20)]
    plan = plan_of({"load": (), **dict.fromkeys(parts, ("load",)), "join": parts})
    lines = terminal(plan, columns=60).splitlines()
    assert lines[:3] == ["1 ── load", "2 ┬─ part_0   ← load", "  ├─ part_1   ← load"]
    assert lines[-1].startswith("3 ── join     ← part_0, part_1")
    assert max(map(len, lines)) <= 60


def test_a_thousand_steps_are_drawn_at_once() -> None:
    plan = plan_of({f"s{i}": [f"s{j}" for j in {0, i - 1, i // 2} if 0 <= j < i] for i in range(1000)})
    assert len(terminal(plan).splitlines()) == 1000
    assert len(_names(ElementTree.fromstring(svg(plan)))) == 1000
    assert mermaid(plan).count("\n") == 1 + 1000 + len(edges_of(plan))


def test_an_order_without_data_is_dashed() -> None:
    plan = plan_of({"a": (), "b": ()}, after={"b": ("a",)})
    assert "s0 -.-> s1" in mermaid(plan)
    assert 'class="line order"' in svg(plan)
    assert 'class="line order"' not in svg(plan_of({"a": (), "b": ("a",)}))


def test_arrows_name_the_output_where_there_are_several() -> None:
    split = Step(name="split", function="m:f", outputs=("train", "test"))
    fit = Step(name="fit", function="m:f", inputs=(Input("x", FromStep("split", "train")),))
    assert mermaid(Plan(name="p", steps=(split, fit))).endswith('    s0 -->|"train"| s1\n')


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_out_of_its_label(name: str) -> None:
    plan = plan_of({name: (), "after": (name,)}, name=name)
    labels = re.findall(r'^    s\d+\["([^"]*)"\]$', mermaid(plan), re.MULTILINE)
    assert [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) for label in labels] == [name, "after"]
    picture = ElementTree.fromstring(svg(plan))
    assert [element.tag for element in picture.iter() if "script" in str(element.tag)] == []
    assert _names(picture)[0] == cut(name, 32)
    lines = terminal(plan).splitlines()
    assert width(lines[0]) == width(lines[1]) == width(lines[2])
    assert cut(name, 32) in lines[1]


def test_a_picture_tells_details() -> None:
    step = Step(
        name="fit", function="train:fit", description="Fits \x00 & <tests>.", outputs=("model",), timeout_seconds=60,
        retry=OrchestratorRetryPolicy(max_attempts=3),
        inputs=(Input("rows", FromParameter("rows")), Input("seed", Constant([1, 2]))),
    )  # fmt: skip
    text = svg(
        Plan(
            name="p",
            steps=(step,),
            parameters=(Parameter(name="rows", default=100), Parameter(name="url", required=True)),
        )
    )
    tooltip = next(ElementTree.fromstring(text).iter(f"{SVG}g"))[0].text
    assert tooltip == "fit\ntrain:fit\nFits  & <tests>.\nrows = parameter rows\nseed = [1, 2]"
    assert "→ model · 3 attempts · 1 min" in text
    assert "rows = 100, url" in text
