"""No name, description or tag breaks out of its literal: 1,000 and more through each compiler.

A pipeline with hostile names is compiled beside one of the same shape with plain names. Both files are parsed; their
trees may differ in literals and identifiers, and in nothing else. It needs no knowledge of what a compiler writes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.core.errors import ParameterError
from flowyml.graph import mermaid, svg, terminal
from flowyml.plan.bundle import build
from flowyml.plan.model import Constant, FromParameter, FromStep, Input, Parameter, PipelineOutput, Plan, Step
from flowyml.plan.names import check_name

EXAMPLES = 40
STEPS = 4
MARK = "zz9"  # stands in every attack, so that it can be found again

ATTACKS = [
    *('"', "'", '"""', "'''", "\\", "\\'", '\\"'),  # ends of literals
    *(f'"); {MARK}(); ("', f"'); {MARK}(); ('", f'""" + {MARK}() + """'),  # and calls after them
    *(
        f"{{{MARK}}}",
        f"{{{{ {MARK} }}}}",
        "{% raw %}",
        f"%s {MARK} %(x)s",
        f"# {MARK}",
    ),  # templates of Python and Jinja
    *(f"${{{MARK}}}", f"$({MARK})", f"`{MARK}`", "../../etc/passwd", "/etc/passwd", "~root", "-rf", "--help"),  # shells
    *(f"{{{{$.inputs.parameters['{MARK}']}}}}", f"{{{{workflow.{MARK}}}}}"),  # placeholders of KFP and Argo
    *(
        "None",
        "True",
        "null",
        "yes",
        "1e3",
        "0x10",
        "1:2",
        "2026-01-01",
        "&a",
        "*a",
        "!!python/object:os.system",
    ),  # YAML
    *("- x", "? y", ": z", "{a: b}", "[a]", "|", ">", "%YAML 1.2", "---", "..."),
    *("<script>", f"</text><script>{MARK}()</script>", "]]>", "<!--", "&lt;", f'x"] --> {MARK}["y', "end"),  # pictures
    *("class", "import", "self", "print", "open", "__import__", "名前", "Ünï", "🙂", "x" * 190),
]


def is_name(text: str) -> bool:
    """Whether FlowyML takes it as a name."""
    try:
        return bool(check_name(text, "step"))
    except ValueError:
        return False


LETTERS = st.characters(exclude_categories=("C", "Z"))
NAMES = st.one_of(st.sampled_from(list(filter(is_name, ATTACKS))), st.text(LETTERS, min_size=1, max_size=40))
TAGS = NAMES.filter(lambda tag: len(tag) <= 100)  # Airflow's limit
# A description is any text that JSON can hold; lines and control characters too.
TEXTS = st.one_of(
    st.sampled_from(ATTACKS).map(lambda attack: f"about {attack}\n{attack}"),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60).map(lambda text: f"about {text}"),
)


@st.composite
def words(draw: st.DrawFn) -> dict[str, list[str]]:
    """What a user may choose freely in a pipeline of ``STEPS`` steps."""
    several = st.lists(NAMES, min_size=STEPS, max_size=STEPS, unique=True)
    return {
        "steps": draw(several),
        "outputs": draw(several),
        "arguments": draw(several),
        "tags": draw(st.lists(TAGS, min_size=STEPS, max_size=STEPS, unique=True)),
        "results": draw(several),
        "pipeline": [draw(NAMES)],
        "texts": [draw(TEXTS) for _ in range(STEPS + 1)],
        "values": [draw(TEXTS) for _ in range(2)],
    }


PLAIN = {
    "steps": [f"step {number}" for number in range(STEPS)],
    "outputs": [f"output {number}" for number in range(STEPS)],
    "arguments": [f"argument {number}" for number in range(STEPS)],
    "tags": [f"tag {number}" for number in range(STEPS)],
    "results": [f"result {number}" for number in range(STEPS)],
    "pipeline": ["a pipeline"],
    "texts": [f"about {number}" for number in range(STEPS + 1)],
    "values": ["value", "other"],
}
TRIED = sum(map(len, PLAIN.values()))


def plan(said: Mapping[str, list[str]]) -> Plan:
    """A chain of steps in which each word stands wherever one of its kind can stand."""
    first, *others = said["steps"]
    inputs = (Input(said["arguments"][0], FromParameter("p")), Input(said["arguments"][1], Constant(said["values"][1])))
    steps = [Step(name=first, function="m:f", inputs=inputs, outputs=(said["outputs"][0],), **about(said, 0))]
    for number, (before, name) in enumerate(pairwise([first, *others]), 1):
        steps.append(
            Step(
                name=name,
                function="m:f",
                outputs=(said["outputs"][number],),
                after=(first,),
                inputs=(Input(said["arguments"][number], FromStep(before, said["outputs"][number - 1])),),
                **about(said, number),
            )
        )
    results = [
        PipelineOutput(result, FromStep(name, output))
        for result, name, output in zip(said["results"], said["steps"], said["outputs"], strict=True)
    ]
    parameter = Parameter(name="p", schema={"type": "string", "title": said["texts"][0]}, default=said["values"][0])
    return Plan(
        name=said["pipeline"][0],
        steps=tuple(steps),
        parameters=(parameter,),
        outputs=tuple(results),
        hooks=("watch",),
        tags=tuple(said["tags"]),
        description=said["texts"][-1],
    )


def about(said: Mapping[str, list[str]], number: int) -> dict[str, Any]:
    return {"description": said["texts"][number], "tags": (said["tags"][number],)}


def python(compiled: str) -> Any:
    """The tree of a Python file without what its literals and names are."""
    tree = ast.parse(compiled)
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, str):
                setattr(node, field, "")
            elif field == "value" and isinstance(node, ast.Constant):
                node.value = None
    return ast.dump(tree)


def document(compiled: str) -> Any:
    """The shape of YAML documents without their keys and texts; a text that became a number is another shape."""
    return [shape(each) for each in yaml.load_all(compiled, yaml.CSafeLoader)]


def shape(node: Any) -> Any:
    if isinstance(node, Mapping):
        return sorted((shape(value) for value in node.values()), key=json.dumps)
    if isinstance(node, list):
        return ["list", *map(shape, node)]
    return type(node).__name__


def picture(compiled: str) -> Any:
    """The kinds of elements of an SVG; a name that was cut short stands whole in a title."""
    return {element.tag for element in ElementTree.fromstring(compiled).iter()} - {"{http://www.w3.org/2000/svg}title"}


def compiled_by(engine: str, made: Plan) -> str:
    from flowyml.orchestrators.targets import resolve

    options = {"dags_folder": "dags"} if engine == "airflow" else {}
    files = resolve(engine, **options).compile_files(build(made))
    return next(data for name, data in files.items() if name.endswith((".py", ".yaml"))).decode()


COMPILERS: Mapping[str, tuple[Callable[[Plan], str], Callable[[str], Any]]] = {
    "prefect": (lambda made: compiled_by("prefect", made), python),
    "airflow": (lambda made: compiled_by("airflow", made), python),
    "kubeflow": (lambda made: compiled_by("kubeflow", made), document),
    "svg": (svg, picture),
}
# A display name on Airflow, and a description on KFP, stand only beside names that are not identifiers there: none of
# these is one.
ENDINGS = {"airflow": ("steps", "pipeline"), "kubeflow": ("outputs", "results")}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_name_changes_what_a_file_does(compiler: str) -> None:
    compile_, parsed = COMPILERS[compiler]
    if compiler == "kubeflow":
        pytest.importorskip("kfp")
    expected = parsed(compile_(plan(PLAIN)))
    tried = 0

    @settings(max_examples=EXAMPLES, database=None)
    @given(words())
    def attack(said: dict[str, list[str]]) -> None:
        nonlocal tried
        said |= {kind: [f"{name} ü" for name in said[kind]] for kind in ENDINGS.get(compiler, ())}
        default, constant = said["values"]  # the constant travels in the plan
        if compiler == "kubeflow" and replaced_by_kubernetes(default):
            with pytest.raises(ParameterError, match="as a variable of the pod"):
                compile_(plan(said))
            said["values"] = [default.replace("$", ""), constant]
        compiled = compile_(plan(said))
        assert parsed(compiled) == expected
        if compiler == "kubeflow":
            holds_no_placeholder(compiled)
        tried += TRIED

    attack()
    assert tried >= 1000


def replaced_by_kubernetes(value: str) -> bool:
    """Return whether Kubernetes replaces something in an argument: ``$$``, or ``$(NAME)`` for a possible name."""
    return "$$" in value or re.search(r"\$\([A-Za-z_.-][\w.-]*\)", value) is not None


def holds_no_placeholder(compiled: str) -> None:
    """KFP's driver replaces ``{{$…}}`` in what a container is called with, and Argo ``{{…}}``."""
    (made, *_) = yaml.load_all(compiled, yaml.CSafeLoader)
    for text in texts(made["deploymentSpec"]):
        assert not re.search(r"\{\{[^}]*" + MARK, text), text


@settings(max_examples=30)
@given(words())
def test_a_terminal_gets_no_control_characters(said: dict[str, list[str]]) -> None:
    for drawing in (terminal(plan(said), columns=200), mermaid(plan(said))):
        assert all(line.isprintable() for line in drawing.splitlines())


def texts(node: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
