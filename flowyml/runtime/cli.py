"""The command line of a bundle: run one step of it, by itself."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from flowyml.core.errors import FlowymlError
from flowyml.plan.codec import decode
from flowyml.plan.model import FromStep, Input, Plan, Step
from flowyml.runtime.hooks import EVENTS, fire_plain
from flowyml.runtime.worker import Worker

__all__ = ["main"]


def main(folder: str, arguments: Sequence[str]) -> int:
    """Run a command on the bundle that is unpacked in ``folder``; gives the exit code."""
    root = Path(folder)
    plan = decode((root / "plan.json").read_bytes())
    parser = _parser(plan)
    given = parser.parse_args(arguments)
    try:
        return int(given.command(root, plan, given))
    except _UsageError as error:
        parser.error(str(error))


class _UsageError(Exception):
    pass


def _step(root: Path, plan: Plan, given: argparse.Namespace) -> int:
    step = _known_step(plan, given.step)
    inputs = _json_of(given.inputs, "--inputs")
    _check_inputs(step, inputs)
    worker = Worker(root, run_id=given.run_id, artifacts=given.artifacts, parameters=_json_of(given.parameters, "--parameters"))
    answer = worker.answer(step, inputs, given.attempt)
    if given.answer:
        Path(given.answer).write_text(json.dumps(answer))
    if failure := answer.get("failure"):
        print(failure["traceback"], end="", file=sys.stderr)
        print(f"\nstep {step.name!r} of pipeline {plan.name!r} failed. Run it again with:\n  {_same_command()}", file=sys.stderr)
        return 1
    if given.output:
        Path(given.output).write_text(json.dumps(answer["outputs"]))
    elif not given.answer:
        print(json.dumps(answer["outputs"]))
    return 0


def _hook(root: Path, plan: Plan, given: argparse.Namespace) -> int:
    names, arguments = EVENTS[given.event], json.loads(given.arguments)
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise _UsageError(f"{given.event} takes --arguments as a JSON list: [{', '.join(names)}]")
    worker = Worker(root, run_id=given.run_id)
    fire_plain(worker.hooks, given.event, arguments)
    return 0


def _serve(root: Path, plan: Plan, given: argparse.Namespace) -> int:
    from flowyml.runtime.serving import serve

    return serve(root, given.control)


def _plan(root: Path, plan: Plan, given: argparse.Namespace) -> int:
    print(plan.canonical.decode())
    return 0


def _parser(plan: Plan) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=Path(sys.argv[0]).name, description=f"Pipeline {plan.name!r}, with all its code, in one file.",
        epilog=_overview(plan), formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    step = commands.add_parser("step", help="run one step", allow_abbrev=False)
    step.add_argument("step", metavar="STEP")
    step.add_argument("--inputs", default="{}", metavar="JSON|@FILE", help="what other steps gave, by name of the input")
    step.add_argument("--parameters", default="{}", metavar="JSON|@FILE", help="parameters of the run; they have defaults")
    step.add_argument("--output", metavar="FILE", help="where to write the outputs; by default the last line of stdout")
    step.add_argument("--artifacts", metavar="URL", help="where large outputs are stored, and inputs were")
    step.add_argument("--attempt", type=int, default=1, metavar="N")
    step.add_argument("--answer", help=argparse.SUPPRESS)
    step.set_defaults(command=_step)
    hook = commands.add_parser("hook", help="fire an event on the pipeline's hooks", allow_abbrev=False)
    hook.add_argument("event", choices=EVENTS)
    hook.add_argument("--arguments", default="[]", metavar="JSON")
    hook.set_defaults(command=_hook)
    for command in (step, hook):
        command.add_argument("--run-id", default="by-hand", metavar="ID")
    serve = commands.add_parser("serve", help="run steps for a waiting process, warm (FlowyML uses this itself)")
    serve.add_argument("--control", type=int, required=True, help=argparse.SUPPRESS)
    serve.set_defaults(command=_serve)
    commands.add_parser("plan", help="print the plan, as JSON").set_defaults(command=_plan)
    return parser


def _overview(plan: Plan) -> str:
    lines = [plan.description, ""] if plan.description else []
    lines.append("steps:")
    lines += [f"  {step.name}({', '.join(i.name for i in step.inputs)}) -> {', '.join(step.outputs) or 'nothing'}" for step in plan]
    if plan.parameters:
        lines.append("parameters:")
        lines += [f"  {p.name}" + ("" if p.required else f" = {json.dumps(p.default)}") for p in plan.parameters]
    return "\n".join(lines)


def _known_step(plan: Plan, name: str) -> Step:
    if name not in plan.by_name:
        raise _UsageError(f"there is no step {name!r}; the pipeline has {', '.join(map(repr, plan.by_name))}")
    return plan.by_name[name]


def _check_inputs(step: Step, inputs: dict[str, Any]) -> None:
    names = [item.name for item in step.inputs]
    if unknown := [name for name in inputs if name not in names]:
        raise _UsageError(f"step {step.name!r} has no input {unknown[0]!r}; it has {', '.join(map(repr, names)) or 'none'}")
    if missing := [item for item in step.inputs if isinstance(item.source, FromStep) and item.name not in inputs]:
        raise _UsageError(f"step {step.name!r} needs --inputs: {', '.join(map(_described_input, missing))}")


def _described_input(item: Input) -> str:
    assert isinstance(item.source, FromStep)
    return f"{item.name!r} (output {item.source.output!r} of step {item.source.step!r})"


def _json_of(text: str, option: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise _UsageError(f"{option}: {error}") from error
    if not isinstance(values, dict):
        raise _UsageError(f"{option} takes a JSON object, such as '{{\"rows\": 5}}'")
    return values


def _same_command() -> str:
    return shlex.join(["python", "-I", *sys.argv])
