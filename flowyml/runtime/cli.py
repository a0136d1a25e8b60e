"""The command line of a bundle: run one of its steps."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowyml.core.errors import MissingSecretError
from flowyml.core.files import write_whole
from flowyml.core.plain_text import safe_text
from flowyml.plan.codec import decode
from flowyml.plan.model import FromStep, Plan, Step
from flowyml.plan.parameters import in_words, too_deep
from flowyml.plan.secrets import forget_secrets
from flowyml.runtime.hooks import EVENTS
from flowyml.runtime.shutdown import End, StepStopped, stoppable
from flowyml.runtime.worker import Worker

__all__ = ["main"]


_PRIVATE = ("--inputs", "--parameters", "--artifacts")


class _UsageError(Exception):
    """Wrong arguments; ends with exit code 2."""


def main(root: Path, bundle: Path, arguments: Sequence[str]) -> int:
    """Run a command on the bundle that is unpacked in ``root``; returns the exit code."""
    plan = decode((root / "plan.json").read_bytes())
    parser = _parser(plan, bundle.name)
    options = parser.parse_args(arguments)
    options.again = shlex.join(["python", "-I", str(bundle), *_without_values(arguments)])
    sys.argv[1:] = []  # they are not for the user's modules, which may parse arguments of their own
    end = End() if getattr(options, "answer", None) else None  # another process waits for the end of this one
    try:
        code = int(options.command(root, plan, options))
    except _UsageError as error:
        parser.error(str(error))
    if end:
        return end.prepare(code)
    return code if code >= 0 else 128 - code  # a signal, as shells have it


def _run_step(root: Path, plan: Plan, options: argparse.Namespace) -> int:
    step = _known_step(plan, options)
    inputs = _json_object(options.inputs, "--inputs")
    _check_inputs(step, inputs)
    parameters = _json_object(options.parameters, "--parameters")
    _check_parameters(plan, parameters)
    worker = Worker(
        root, run_id=options.run_id, artifacts=options.artifacts, place=options.place, parameters=parameters,
        dates=_json_object(options.dates, "--dates"), is_read=bool(options.answer),
    )  # fmt: skip
    index = [int(number) for number in options.item.split("/") if number]
    request = {"kind": "step", "step": step.name, "attempt": options.attempt, "index": index, "body": inputs}
    try:
        with stoppable():
            answer = worker.answer({**request, "secrets": _secrets(step)})
    except StepStopped:
        return -signal.SIGTERM
    if options.answer:
        write_whole(Path(options.answer), json.dumps(answer).encode())  # another process may be waiting for it
    if failure := answer.get("failure"):
        message = f"step {step.name!r} of pipeline {plan.name!r} failed. To run it again:\n  {options.again}"
        print(f"{failure['traceback']}\n{message}", file=sys.stderr)
        return 1
    outputs = json.dumps(answer["outputs"])
    if options.output:
        Path(options.output).write_text(outputs)
    elif not options.answer:
        print(outputs)
    return 0


def _secrets(step: Step) -> dict[str, str]:
    """Return the secrets of a step, from the environment, and remove all secrets from it."""
    try:
        if not step.secrets:
            return {}
        from flowyml.runtime.secrets import from_environment, secrets_of

        return secrets_of(step.name, step.secrets, from_environment)
    except MissingSecretError as error:
        raise _UsageError(str(error)) from error
    finally:
        forget_secrets()


def _run_hook(root: Path, plan: Plan, options: argparse.Namespace) -> int:
    names, arguments = EVENTS[options.event], _json(options.arguments, "--arguments")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise _UsageError(f"{options.event} takes --arguments as a JSON list: [{', '.join(names)}]")
    forget_secrets()
    worker = Worker(root, run_id=options.run_id, is_read=bool(options.answer))
    answer = worker.answer({"kind": "hook", "event": options.event, "body": arguments})
    if options.answer:
        write_whole(Path(options.answer), json.dumps(answer).encode())
    return 0


def _without_values(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a command line for a log that others read: without values and the store's address, but with names of files.

    The engine's file for the answer is left out too, since a run by hand must not overwrite it.

    >>> list(_without_values(["step", "a", "--inputs", "@in.json", "--parameters", '{"key": 1}', "--artifacts=s3://b"]))
    ['step', 'a', '--inputs', '@in.json', '--parameters', '…', '--artifacts=…']
    >>> list(_without_values(["step", "--answer=/run/1.json", "load", "--answer", "/run/1.json", "--attempt=2"]))
    ['step', 'load', '--attempt=2']
    """
    is_value = is_left_out = False
    for word in arguments:
        name, equals, value = word.partition("=")
        if is_left_out:
            is_left_out = False
        elif name == "--answer":
            is_left_out = not equals
        elif is_value:
            yield word if word.startswith("@") else "…"
            is_value = False
        elif name in _PRIVATE:
            yield word if not equals or value.startswith("@") else f"{name}=…"
            is_value = not equals
        else:
            yield word


def _print_plan(root: Path, plan: Plan, options: argparse.Namespace) -> int:
    text = plan.canonical.decode()
    print(safe_text(text) if sys.stdout.isatty() else text)
    return 0


def _parser(plan: Plan, program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description=_literal(f"Pipeline {plan.name!r}, with all its code, in one file."),
        epilog=_literal(_overview(plan)), formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    step = commands.add_parser("step", help="run one step", allow_abbrev=False)
    step.add_argument("step", metavar="STEP", nargs="?")
    step.add_argument("--step", dest="same_step", help=argparse.SUPPRESS)  # for names that begin with a dash
    step.add_argument("--parameters", default="{}", metavar="JSON|@FILE", help="parameters of the run")
    step.add_argument(
        "--dates", default="{}", metavar="JSON", help="logical_date, data_interval_start and _end; by default now"
    )
    step.add_argument("--artifacts", metavar="URL", help="store of large outputs; by default FLOWYML_ARTIFACTS")
    step.add_argument("--place", default="", help=argparse.SUPPRESS)  # of the run among the artifacts
    step.add_argument("--output", metavar="FILE", help="where the outputs go; by default the last line of stdout")
    step.add_argument("--attempt", type=int, default=1, metavar="N")
    step.set_defaults(command=_run_step)
    step.add_argument(
        "--inputs", default="{}", metavar="JSON|@FILE", help="the values from other steps, by name of the input"
    )
    step.add_argument("--item", default="", metavar="N", help="which item of its loop, from 0; 3/7 in two loops")
    hook = commands.add_parser("hook", help="fire an event on the pipeline's hooks", allow_abbrev=False)
    hook.add_argument("event", choices=EVENTS)
    hook.add_argument("--arguments", default="[]", metavar="JSON|@FILE")
    hook.set_defaults(command=_run_hook)
    for command in (step, hook):
        command.add_argument("--run-id", default="by-hand", metavar="ID")
        command.add_argument("--answer", help=argparse.SUPPRESS)
    commands.add_parser("plan", help="print the plan as JSON").set_defaults(command=_print_plan)
    return parser


def _overview(plan: Plan) -> str:
    """Return the steps and parameters, for ``--help``."""
    lines = [plan.description, ""] if plan.description else []
    lines.append("steps:")
    lines += [f"  {step.name}({', '.join(i.name for i in step.inputs)}) -> {_listed(step.outputs)}" for step in plan]
    if plan.parameters:
        lines.append("\nparameters:")
        lines += [
            f"  {p.name}" + ("" if p.required else f" = {in_words(p.default) or json.dumps(p.default)}")
            for p in plan.parameters
        ]
    return safe_text("\n".join(lines))


def _literal(text: str) -> str:
    """Escape a text for argparse, which fills in ``%(prog)s``."""
    return text.replace("%", "%%") if "%(prog)" in text else text


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _known_step(plan: Plan, options: argparse.Namespace) -> Step:
    name = options.same_step or options.step
    if name not in plan.by_name:
        raise _UsageError(f"the pipeline has no step {name!r}; it has {', '.join(map(repr, plan.by_name))}")
    return plan.by_name[name]


def _check_inputs(step: Step, inputs: dict[str, Any]) -> None:
    names = [item.name for item in step.inputs]
    if unknown := [name for name in inputs if name not in names]:
        raise _UsageError(
            f"step {step.name!r} has no input {unknown[0]!r}; it has {', '.join(map(repr, names)) or 'none'}"
        )
    missing = [
        f"{item.name!r} (output {item.source.output!r} of step {item.source.step!r})"
        for item in step.inputs
        if isinstance(item.source, FromStep) and item.name not in inputs and step.run_if == "all_success"
    ]
    if missing:
        raise _UsageError(f"step {step.name!r} needs --inputs with {', '.join(missing)}")


def _check_parameters(plan: Plan, parameters: dict[str, Any]) -> None:
    names = [parameter.name for parameter in plan.parameters]
    if unknown := [name for name in parameters if name not in names]:
        raise _UsageError(
            f"the pipeline has no parameter {unknown[0]!r}; it has {', '.join(map(repr, names)) or 'none'}"
        )


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise _UsageError(f"{option}: {error}") from error
    except RecursionError:
        raise _UsageError(too_deep(option)) from None


def _json_object(text: str, option: str) -> dict[str, Any]:
    values = _json(text, option)
    if not isinstance(values, dict):
        raise _UsageError(f"{option} takes a JSON object, such as '{{\"rows\": 5}}'")
    return values
