"""The text of steps: copied functions with their decorators, steps that call them, operators, and holes."""

from __future__ import annotations

from collections.abc import Iterator

from flowyml.migration.airflow.writer.deciding.decision import Decision
from flowyml.migration.airflow.writer.text.names import Names, Policy, policy_of
from flowyml.migration.airflow.writer.values import as_number
from flowyml.plan.layout import Group, Pair, Part, Text, source, text_literal, value

__all__ = ["decorator", "hole", "operator", "retry", "step_options"]


def decorator(names: Names, decision: Decision, named: str) -> Part:
    """``@step`` of a function of one task, with all options."""
    step = names.word("step")
    options = list(step_options(names, decision, named))
    return Group(f"{step}(", options, ")") if options else step


def step_options(names: Names, decision: Decision, named: str = "") -> Iterator[Part]:
    """Yield the options of a step."""
    options = decision.options
    if named != decision.name:
        yield f"name={text_literal(decision.name)}"
    if policy := policy_of(decision):
        yield f"retry={names.policies[policy]}" if policy in names.policies else Pair("retry=", retry(names, policy))
    if "timeout" in options:
        yield f"timeout={as_number(options['timeout'])}"
    if "run_if" in options:
        yield f"run_if={text_literal(options['run_if'])}"
    if named and "airflow" in options:
        yield Pair("airflow=", value(options["airflow"]))


def retry(names: Names, policy: Policy) -> Part:
    """Return a retry policy."""
    options = dict(policy)
    given: list[Part] = [f"max_attempts={int(options['retries']) + 1}"]
    given.append(f"initial_delay_seconds={as_number(options['retry_delay'])}")
    given.append(f"backoff_multiplier={options.get('backoff', 1.0)}")
    given += [f"max_delay_seconds={as_number(options['max_delay'])}"] if "max_delay" in options else []
    return Group(f"{names.word('OrchestratorRetryPolicy')}(", given, ")")


def hole(names: Names, decision: Decision, text: str) -> str:
    """Return a step that fails with the reason why its task was not imported.

    ``text`` is the task's function in the DAG file, which stays in the step as a comment.
    """
    task, name = decision.task, names.variable(decision)
    why = f"Task {task.task_id!r} is {task.operator}, and was not imported: {decision.notes[0].reason}."
    literal = source(Text(why), 1, lead=26).removeprefix("(").removesuffix(")")
    options = f"(name={text_literal(decision.name)})" if name != decision.name else ""
    head = f"@{names.word('step')}{options}\ndef {name}() -> {names.word('Any')}:\n"
    lines = [f"    # {line}".rstrip() for line in text.splitlines()]
    return "\n".join([f"{head}    raise NotImplementedError({literal})", *lines]) + "\n"


def operator(names: Names, decision: Decision) -> Part:
    """Return an operator, unchanged."""
    arguments: list[Part] = [text_literal(decision.operator), f"task_id={text_literal(decision.name)}"]
    for name, given in decision.arguments.items():
        written = names.constant_of(decision.task.argument(name), given) or names.words.part(given)
        arguments.append(Pair(f"{names.words.keyword(name)}=", written))
    rule = decision.options.get("run_if") or decision.options.get("trigger_rule")
    if rule:
        arguments.append(f"trigger_rule={text_literal(rule)}")
    return Group(f"{names.word('airflow_operator')}(", arguments, ")")
