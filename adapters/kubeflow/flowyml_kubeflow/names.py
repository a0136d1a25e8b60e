"""Map FlowyML's names to KFP's: stable, within Kubernetes' rules, and different for different names.

No name that a user chose has a double hyphen as a task or a hyphen as a port, so FlowyML's own names, which have them,
collide with none. No name has a dot, at which KFP's UI splits the ids of its boxes. The step's own name is the task's
display name.
"""

from __future__ import annotations

import re
from functools import lru_cache

from flowyml.plan.names import identifier, slug

__all__ = [
    "ARTIFACTS", "BUNDLE", "BUNDLE_TASK", "CHUNK", "CHUNKS", "END_TASK", "JOB", "LAST_TASK", "NOTES", "REPLACED",
    "RESULT_TASK", "RUN", "RUN_TASK", "STARTED", "START_TASK", "STATUS", "STEP", "STEPS_TASK", "TIME", "constant",
    "gather_task", "group_task", "is_record", "items_task", "loop_task", "of_all", "of_group", "of_items", "output",
    "part", "part_task", "pipeline", "port", "record", "shown", "step_shown", "task",
]  # fmt: skip

# Ports: inputs and outputs of a component, which KFP's UI shows.
BUNDLE = "flowyml-code"
STEP = "step-name"  # of one of several steps that share a component
RUN = "run-name"
JOB = "workflow-name"
TIME = "scheduled-time"
STARTED = "started-at"
STATUS = "status-of-steps"
CHUNKS = "items-of-pods"  # which items each pod of a loop works on: JSON, as ["0:4", "4:8"]
CHUNK = "items-of-pod"

ARTIFACTS = "FLOWYML_ARTIFACTS"  # a variable of containers that names the store of the steps
NOTES = "FLOWYML_NOTES"  # a variable of containers that write notes about their steps

BUNDLE_TASK = "flowyml--bundle"
START_TASK = "flowyml--start"
RUN_TASK = "flowyml--run"
STEPS_TASK = "flowyml--steps"
LAST_TASK = "flowyml--last"
END_TASK = "flowyml--end"
RESULT_TASK = "flowyml--result"  # the last one of a pipeline with control flow, which knows how it all ended

_LONGEST_LOOP = 50  # characters of a loop's name in a task's
_RECORDS = ("-result", "-items", "-results")  # the ends of artifacts from ``record`` and its siblings
# The names of nodes that KFP's backend adds to each task; source: KFP, argocompiler/dag.go and container.go.
_TAKEN = frozenset({"executor", "root"})
_DRIVER = "-driver"

# The first character of what is replaced in all texts that KFP gives to a pod. Kubernetes reads "$(NAME)" as a variable
# of the container, which may be a secret, and "$$" as "$"; KFP's launcher replaces "{{$…}}"; Argo computes "{{=…}}"
# and replaces or refuses its variables. Sources: Kubernetes, Container, args; KFP #10370, launcher_v2.go; Argo,
# util/template; operator.go, executeTemplate; workflowpod.go, processPodSpecPatch; validate.go, resolveAllVariables.
REPLACED = re.compile(
    r"\$(?=\$|\([A-Za-z_.-][\w.-]*\))"
    r"|\{(?=\{\s*(?:[$=]|retries\b|(?:workflow|inputs|outputs|tasks|steps|item|pod|node|lastRetry)\.))"
)
# Words that Argo reads as operators and constants in an expression such as ``X.Succeeded``; source: expr-lang,
# lexer/state.go and parser.go.
_WORDS = frozenset({
    "and", "contains", "else", "false", "if", "in", "let", "matches", "nil", "not", "or", "true",
})  # fmt: skip


def part_task(number: int) -> str:
    """Return the task that passes a part of the code to ``BUNDLE_TASK``; parts count from 1."""
    return f"{BUNDLE_TASK}-{number}"


def part(number: int) -> str:
    """Return the port of a part in ``BUNDLE_TASK``."""
    return f"{BUNDLE}-{number}"


@lru_cache(1 << 14)  # a large pipeline asks for each name several times
def task(step: str) -> str:
    """Return the task of a step.

    Argo refuses names that begin with a digit where tasks depend on one another (source: Argo, validate.go,
    ``validateDAG``), and reads some words as operators.

    >>> task("Train model"), task("a--b"), task("load-driver")
    ('train-model-44d9b426', 'a-b-90827a2e', 'load-driver-468b86d5')
    >>> task("2nd"), task("matches")
    ('step-2nd-cdf7ff3e', 'matches-9a62080e')
    """
    name = slug(step)
    if name[0].isdigit():
        return f"step-{slug(f'{step} ', max_length=55)}"
    return slug(f"{step} ") if name in _TAKEN | _WORDS or name.endswith(_DRIVER) else name


def pipeline(name: str) -> str:
    """Return the name of the pipeline in its file."""
    return slug(name)


@lru_cache(1 << 14)
def port(name: str) -> str:
    """Return the parameter or artifact for an input, an output or a parameter of the run.

    >>> port("rows"), port("größe")
    ('rows', 'groe_d353a267')
    """
    return identifier(name)


def constant(step: str) -> str:
    """Return the constant that identifies a step to its task: the name, or a text that KFP and Kubernetes leave alone.

    >>> constant("Train model"), constant("{{$.pipeline_job_name}}"), constant("$(HOME)")
    ('Train model', 'pipeline-job-name-00159226', 'home-b01d8556')
    """
    return task(step) if "{{" in step or REPLACED.search(step) else step


def shown(step: str) -> str:
    """Return the step's name for KFP's UI.

    It is part of a template of Argo's, which refuses, replaces or computes ``{{…}}``.

    >>> shown("Train model"), shown("{{=1+1}}")
    ('Train model', '{ {=1+1}}')
    """
    return _everywhere(step, "{{", "{ {")


def step_shown(name: str, of_task: str) -> str:
    """Return the step behind a name in KFP's UI; the task shows whether the name is the step's own.

    >>> step_shown("{ {=1+1}}", task("{{=1+1}}")), step_shown("{ {x}", task("{ {x}"))
    ('{{=1+1}}', '{ {x}')
    """
    if "{ {" not in name or task(name) == of_task:
        return name
    meant = _everywhere(name, "{ {", "{{")
    return meant if task(meant) == of_task else name  # of a name that has both, the one that is shown


def _everywhere(text: str, old: str, new: str) -> str:
    while old in text:
        text = text.replace(old, new)
    return text


# With control flow: artifacts that say how steps ended, with their outputs, or what the items of a loop are; tasks.


def record(name: str) -> str:
    """Return the artifact with the end of a step, and its outputs.

    >>> record("train"), is_record(record("train")), is_record("train")
    ('train-result', True, False)
    """
    return f"{port(name)}-result"


def is_record(port: str) -> bool:
    """Return whether a port is a name from ``record``, ``of_items``, ``of_all`` or ``of_group``."""
    return port.endswith(_RECORDS)


def _short(loop: str) -> str:
    """Return the task name of a loop, short enough for KFP's template.

    ``comp-X--loop-X--loop-iterator`` of a longer name is refused (tried on KFP 2.17: 50 characters are accepted, 51 are
    not).

    >>> len(_short("x" * 50)), _short("train-" * 9)
    (50, 'train-train-train-train-train-train-train-6e6bbc9b')
    """
    name = task(loop)
    return name if len(name) <= _LONGEST_LOOP else slug(name, max_length=_LONGEST_LOOP)


def loop_task(loop: str) -> str:
    """Return the task of the loop itself, which KFP shows with a run of it for each chunk of items.

    >>> loop_task("train"), items_task("train"), gather_task("train")
    ('train--loop', 'train--items', 'train--all')
    >>> of_items("train"), of_all("train")
    ('train-items', 'train-results')
    """
    return f"{_short(loop)}--loop"


def items_task(loop: str) -> str:
    """Return the task that prepares a loop: its items, and their chunks for the pods."""
    return f"{_short(loop)}--items"


def gather_task(loop: str) -> str:
    """Return the task that joins the results of a loop's pods."""
    return f"{_short(loop)}--all"


def of_items(loop: str) -> str:
    """Return the artifact of a loop's items, and of the other values that its steps take from outside."""
    return f"{port(loop)}-items"


def group_task(group: str) -> str:
    """Return the task that runs the steps of an execution group.

    >>> group_task("prepare"), of_group("prepare"), output("load", "rows")
    ('prepare--group', 'prepare-group-result', 'load_rows_52736b6e')
    """
    return f"{task(group)}--group"


def of_group(group: str) -> str:
    """Return the artifact with the ends of the steps of an execution group."""
    return f"{port(group)}-group-result"


def output(step: str, name: str) -> str:
    """Return the parameter that shows an output of one of several steps."""
    return port(f"{task(step)} {name}")


def of_all(loop: str) -> str:
    """Return the artifact with the ends of a loop's steps, for all items."""
    return f"{port(loop)}-results"
