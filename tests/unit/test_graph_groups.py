"""Graphs with loops, branches, clean-up, pipelines in pipelines and execution groups: what stands in what."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowyml import cleanup, either, elif_, for_each, otherwise, pipeline, step, when
from flowyml.graph import mermaid, svg, terminal
from flowyml.graph.arrows import arrows, levels
from flowyml.graph.closing import plan_to_draw
from flowyml.graph.execution_groups import with_execution_groups
from flowyml.plan.conditions import IsTrue
from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.model import FromStep, Input, Plan, Step

SVG = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


@step
def load(rows: int) -> list[int]:
    return list(range(rows))


@step
def count(values: list[int]) -> int:
    return len(values)


@step
def train(rate: float, rows: int) -> float:
    return rate * rows


@step
def best(scores: list[Any]) -> float:
    return max(scores)


@step
def say(score: float) -> str:
    return str(score)


@step
def drop(score: float | None = None) -> None: ...


@pipeline
def prepare(rows: int = 10) -> int:
    """Count what there is."""
    return count(load(rows))


@pipeline
def whole(rates: list[float] = [0.1, 0.2]) -> str:
    rows = prepare()
    found = best(train.options(max_parallel=2).partial(rows=rows).map(rate=rates))
    with when(found > 0.9):
        good = say.options(name="publish")(found)
    with elif_(found > 0.5):
        fair = say.options(name="ask")(found)
    with otherwise():
        bad = say.options(name="reject")(found)
    with cleanup():
        drop(found)
    return say.options(name="announce")(either(good, fair, bad))


def boxes(picture: ElementTree.Element, kind: str) -> dict[str, Box]:
    """The rectangles of a kind by the text that is drawn in them."""
    found = {}
    for group in picture.iter(f"{SVG}g"):
        rects = [rect for rect in group.findall(f"{SVG}rect") if str(rect.get("class")).split()[0] == kind]
        if rects:
            x, y, wide, high = (float(rects[-1].get(name, "0")) for name in ("x", "y", "width", "height"))
            text = group.find(f"{SVG}text")
            assert text is not None
            found[str(text.text)] = (x, y, x + wide, y + high)
    return found


def holds(frame: Box, box: Box) -> bool:
    return frame[0] < box[0] and frame[1] < box[1] and box[2] < frame[2] and box[3] < frame[3]


def touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Steps in groups of any shape, also such as no pipeline makes: a step outside may stand between two inside."""
    over, names = FromStep("start", "out"), [""]
    groups: list[Group] = []
    for name in [f"g{number}" for number in range(draw(st.integers(0, 5)))]:
        parent = draw(st.sampled_from(names))
        kinds: list[Group] = [
            Loop(name=name, parent=parent, over=(Input("item", over),)),
            Branch(name=name, parent=parent, choice=name, condition=IsTrue(over)),
            Section(name=name, parent=parent, pipeline="p"),
            Cleanup(name=name, parent=parent),
        ]
        groups.append(draw(st.sampled_from(kinds)))
        names.append(name)
    steps = [Step(name="start", function="m:f", outputs=("out",))]
    for number in range(draw(st.integers(1, 9))):
        earlier = [step.name for step in steps[1:]]
        before = draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
        inputs = tuple(Input(f"x_{each}", FromStep(each, "out")) for each in before)
        group = draw(st.sampled_from(names))
        together = draw(st.sampled_from(["", f"e{group}"]))
        steps.append(
            Step(
                name=f"s{number}",
                function="m:f",
                inputs=inputs,
                outputs=("out",),
                group=group,
                execution_group=together,
            )
        )
    return Plan(name="random", steps=tuple(steps), groups=tuple(groups))


@pytest.mark.slow
@given(plans())
@settings(max_examples=150)
def test_a_frame_holds_its_steps_and_nothing_else(plan: Plan) -> None:
    picture = ElementTree.fromstring(svg(plan, expand=True))
    steps, frames = boxes(picture, "box"), boxes(picture, "frame")
    assert sorted(steps) == sorted(step.name for step in plan)
    plan = with_execution_groups(plan)
    names = {re.sub(r"^(if out \(|each item of |execution group)|\)$", "", title): box for title, box in frames.items()}
    assert set(names) == set(levels(plan)) - {""}
    for name, frame in names.items():
        members = plan.structure.members(name)
        for step_name, box in steps.items():
            assert holds(frame, box) if step_name in members else not touch(frame, box), (name, step_name)
    drawn = sum(1 for path in picture.iter(f"{SVG}path") if path.get("marker-end"))
    assert drawn == len(list(arrows(plan, names)))


@pytest.mark.slow
@given(plans())
@settings(max_examples=100)
def test_what_is_closed_is_one_step_and_hides_no_line_outside(plan: Plan) -> None:
    assume(all(plan.structure.members(group.name) for group in plan.groups))  # no pipeline has an empty loop
    picture = plan_to_draw(plan)
    inside = {name for names in picture.closed.values() for name in names}
    kept = {step.name for step in picture.plan if step.name not in picture.closed}
    assert inside | kept == {step.name for step in plan}
    assert not inside & kept
    node = {name: closed for closed, names in picture.closed.items() for name in names}

    def lines(what: Plan) -> set[tuple[str, str]]:
        pairs = ((node.get(a, a), node.get(b.name, b.name)) for b in what for a in what.structure.upstream(b))
        return {pair for pair in pairs if pair[0] != pair[1]}

    assert lines(picture.plan) == lines(plan)
    for draw in (svg, mermaid, terminal):
        assert draw(plan) == draw(plan)


def test_two_pipelines_that_wait_for_each_other_stay_open() -> None:
    steps = (
        Step(name="p.a", function="m:f", outputs=("x",), group="p"),
        Step(name="between", function="m:f", inputs=(Input("x", FromStep("p.a", "x")),), outputs=("y",)),
        Step(name="p.b", function="m:f", inputs=(Input("y", FromStep("between", "y")),), group="p"),
    )
    plan = Plan(name="q", steps=steps, groups=(Section(name="p", pipeline="p"),))
    assert plan_to_draw(plan).closed == {}
    assert "frame" not in re.findall(r'class="([^"]*)"', svg(plan))  # it would hold what does not belong to it


def test_marks_stand_for_groups_and_a_legend_says_which() -> None:
    text = terminal(whole.compile())
    assert re.findall(r"│ (\S+) +([⟳?⏏⊞]+) ", text) == [
        ("prepare", "⊞"), ("train", "⟳"), ("publish", "?"), ("ask", "?"), ("reject", "?"), ("drop", "⏏"),
    ]  # fmt: skip
    assert text.partition("\n\n")[2].splitlines() == [
        "⟳ each rate of rates, 2 at a time: train",
        "? if best > 0.9: publish",
        "? else if best > 0.5: ask",
        "? otherwise: reject",
        "⏏ clean-up: drop",
        "⊞ pipeline prepare: prepare.load, prepare.count",
    ]
    opened = terminal(whole.compile(), expand=True)
    assert "│ prepare.load  │" in opened
    assert "⊞" not in opened


@pipeline
def together(rows: int = 10) -> str:
    counted = count.options(execution_group="prepare")(load.options(execution_group="prepare")(rows))
    with for_each([0.1, 0.2]) as rate:
        fitted = train.options(execution_group="fit")(rate, counted)
        said = say.options(execution_group="fit")(fitted)
    return best(said)


@pipeline
def around(rows: int = 10) -> str:
    return together(rows)


@pipeline
def choosing(rows: int = 10) -> str:
    with when(count.options(name="first")(load(rows)) > 3, name="many"):
        counted = prepare(rows)
    with otherwise(name="few"):
        other = count.options(name="again")([1])
    with when(either(counted, other) > 5):
        good = say.options(name="publish")(1.0)
    with otherwise():
        bad = say.options(name="reject")(0.0)
    return say.options(name="announce")(either(good, bad))


def test_a_branch_with_a_name_shows_its_condition_too_and_stands_where_it_was_written() -> None:
    assert terminal(choosing.compile()).partition("\n\n")[2].splitlines() == [
        "? if first > 3 (many): prepare",
        "? otherwise (few): again",
        "? if either(count, again) > 5: publish",
        "? otherwise: reject",
        "⊞ pipeline prepare: prepare.load, prepare.count",
    ]
    text = mermaid(choosing.compile())
    assert text.index('"prepare"') < text.index('"again"') < text.index('"publish"') < text.index('"reject"')


def test_steps_of_an_execution_group_have_its_mark_and_stand_together_in_the_legend() -> None:
    text = terminal(around.compile(), expand=True)
    assert re.findall(r"│ together\.(\S+) +([⟳▤]+) ", text) == [
        ("load", "▤"),
        ("count", "▤"),
        ("train", "⟳▤"),
        ("say", "⟳▤"),
    ]
    assert text.partition("\n\n")[2].splitlines() == [
        "⟳ each item: execution group together.fit",
        "▤ execution group together.prepare: together.load, together.count",
        "▤ execution group together.fit: together.train, together.say",
    ]
    assert "▤" not in terminal(around.compile())


def test_an_execution_group_is_a_frame_within_that_of_its_loop() -> None:
    picture = ElementTree.fromstring(svg(together.compile()))
    steps, frames = boxes(picture, "box"), boxes(picture, "frame")
    assert list(frames) == ["execution group prepare", "each item", "execution group fit"]
    assert holds(frames["execution group prepare"], steps["count"])
    assert holds(frames["each item"], frames["execution group fit"])
    assert mermaid(together.compile()).count('subgraph g1["execution group prepare"]') == 1


def test_a_legend_is_as_wide_as_the_terminal_and_not_endless() -> None:
    @pipeline
    def many() -> None:
        for number in range(30):
            with for_each([1, 2], name=f"loop {number} {'of a long name' * 3}") as item:
                say(item)

    legend = terminal(many.compile(), columns=60).partition("\n\n")[2].splitlines()
    assert len(legend) == 20
    assert max(map(len, legend)) == 60
    assert legend[-1] == "  … 11 more"


def test_mermaid_has_subgraphs_to_which_lists_and_conditions_lead() -> None:
    text = mermaid(whole.compile())
    ids = {name: key for key, name in re.findall(r'(\w+)\[+"([^"]*)"\]+$', text, re.MULTILINE)}
    assert f'{ids["prepare"]}[["prepare"]]' in text
    assert re.search(rf"^    {ids['best']} --> {ids['otherwise']}$", text, re.MULTILINE)
    assert re.search(rf"^    {ids['best']} --> {ids['publish']}$", text, re.MULTILINE)
    assert text.count("subgraph") == text.count("    end\n") == 5
    assert mermaid(whole.compile(), expand=True).count("subgraph") == 6


def test_a_closed_pipeline_names_its_steps_when_hovered() -> None:
    picture = ElementTree.fromstring(svg(whole.compile()))
    titles = [str(title.text) for group in picture.iter(f"{SVG}g") for title in group.findall(f"{SVG}title")]
    assert "prepare\nCount what there is.\nprepare.load\nprepare.count" in titles
    assert set(boxes(picture, "frame")) == {
        "each rate of rates, 2 at a time", "if best > 0.9", "else if best > 0.5", "otherwise", "clean-up",
    }  # fmt: skip


def test_frames_have_their_colours_in_programs_that_are_no_browser(tmp_path: Path) -> None:
    path = tmp_path / "graph.svg"
    path.write_text(svg(whole.compile(), expand=True))
    command = ["rsvg-convert", "--format=svg", str(path)]
    drawn = subprocess.run(command, capture_output=True, check=True, timeout=2400).stdout.decode()
    strokes = {
        tuple(round(float(part.strip("% ")) * 2.55) for part in colour.split(","))
        for colour in re.findall(r'stroke="rgb\(([^)]*)\)"', drawn)
    }
    assert {(76, 95, 213), (183, 121, 31), (47, 133, 90), (91, 101, 119)} <= strokes
