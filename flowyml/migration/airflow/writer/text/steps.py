"""The text of steps: copied functions with their decorators, steps that call them, operators, and holes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import libcst as cst

from flowyml.migration.airflow.model import Argument, Symbolic, ValueEdge
from flowyml.migration.airflow.writer.deciding.context import DATES, Asked, Code, Template, Word
from flowyml.migration.airflow.writer.deciding.decision import Decision
from flowyml.migration.airflow.writer.text.names import Names, Policy, policy_of
from flowyml.migration.airflow.writer.values import as_number, in_f_string
from flowyml.plan.layout import Group, Lines, Pair, Part, Text, source, text_literal, value


def decorator(names: Names, decision: Decision, named: str) -> Part:
    """Return ``@step`` of a function of one task, with all options."""
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
        engine = options["airflow"]
        yield Pair("airflow=", names.engine.get(repr(engine), "") or value(engine))


def retry(names: Names, policy: Policy) -> Part:
    """Return a retry policy."""
    options = dict(policy)
    arguments: list[Part] = [f"max_attempts={int(options['retries']) + 1}"]
    arguments.append(f"initial_delay_seconds={as_number(options['retry_delay'])}")
    arguments.append(f"backoff_multiplier={options.get('backoff', 1.0)}")
    arguments += [f"max_delay_seconds={as_number(options['max_delay'])}"] if "max_delay" in options else []
    return Group(f"{names.word('OrchestratorRetryPolicy')}(", arguments, ")")


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
    for name, argument in decision.arguments.items():
        said = decision.defaults if name == "default_args" else decision.task.argument(name)
        written = names.argument(said, argument, names.words.part)
        arguments.append(Pair(f"{names.words.keyword(name)}=", written))
    rule = decision.options.get("run_if") or decision.options.get("trigger_rule")
    if rule:
        arguments.append(f"trigger_rule={text_literal(rule)}")
    return Group(f"{names.word('airflow_operator')}(", arguments, ")")


Variables = Mapping[tuple[str, str], str]


def wrapper_arguments(names: Names, decision: Decision) -> tuple[list[str], Variables]:
    """Return the names of its arguments: what calls give it, dates, parameters, items, and values of other tasks."""
    decision = decision.like or decision
    assert decision.asking
    own = [*decision.own_values, *decision.asking.dates, *decision.asking.parameters, *decision.over, *decision.items]
    values: dict[tuple[str, str], str] = {}
    for edge in decision.whole:
        if (edge.task_id, edge.key) in values:
            continue
        task = edge.task_id.removeprefix(decision.within)
        name = names.value_of(task if edge.key == "return_value" else f"{task}_{edge.key}")
        while name in (*own, *values.values()):
            name += "_"
        values[edge.task_id, edge.key] = name
    return own, values


def wrapper(names: Names, decision: Decision, parameters: Mapping[str, str]) -> str:
    """Return the text of a step that calls a copied function or ``bash``, or that runs a DAG.

    ``parameters`` are those of the pipeline, with their annotations.
    """
    name, word, keyword = names.variable(decision), names.word, names.words.keyword
    decorated = decorator(names, decision, name if names.step_name(decision) == decision.name else decision.name)
    returns = _returns(decision)
    own, values = wrapper_arguments(names, decision)
    said = {**parameters, **{each: word(DATES[each][0]) for each in own if each in DATES}}
    for each in decision.own_values:
        kinds = {type(call.own_values[each]) for call in names.calls[id(decision)]}
        if len(kinds) == 1 and kinds <= {str, int, float, bool}:
            said[each] = kinds.pop().__name__
    arguments: list[Part] = [f"{keyword(each)}: {said[each]}" if each in said else keyword(each) for each in own]
    arguments += [f"{each}=None" if decision.may_be_missing else each for each in values.values()]
    part = partial(_part, values=values, word=word)
    passed = {name: names.argument(said_of(decision, name), each, part) for name, each in decision.arguments.items()}
    passed |= {each: each for each in decision.over}
    head = source(Group(f"def {name}(", arguments, ")"), trail=len(returns) + 5) + (f" -> {returns}" if returns else "")
    call = _run(names, decision, passed) if decision.starts else _call(names, decision, passed)
    if decision.through_bash is not None:
        extra = [Pair(f"{keyword(each)}=", _part(one, values, word)) for each, one in decision.through_bash.items()]
        call = Group(f"{word('bash')}(", [call, *extra], ")")
    body = source(call if returns == "None" else Pair("return ", call), 1)
    return f"@{source(decorated)}\n{head}:\n    {body}\n"


def said_of(decision: Decision, name: str) -> Argument | ast.expr | None:
    """Return the argument in the DAG file that one of a step is, or its expression."""
    task = decision.task
    if decision.function is None:
        return task.argument("bash_command" if name == "command" else name)
    if found := next((each for each in task.call_arguments if each.name == name), None):
        return found
    argument = task.argument("op_args" if name.isdigit() else "op_kwargs")
    match ast.parse(argument.source, mode="eval").body if argument and argument.source else None:
        case ast.List(elts=parts) if name.isdigit() and int(name) < len(parts):
            return parts[int(name)]
        case ast.Dict(keys=keys, values=parts):
            named = {key.value: part for key, part in zip(keys, parts, strict=True) if isinstance(key, ast.Constant)}
            return named.get(name)
    return None


def _call(names: Names, decision: Decision, passed: Mapping[str, Part]) -> Group:
    """Return the call of its function, or of ``bash``."""
    function = names.functions[decision.function.key] if decision.function else names.word("bash")
    arguments = [
        part if each.isdigit() else Pair(f"{names.words.keyword(each)}=", part) for each, part in passed.items()
    ]
    return Group(f"{function}(", arguments, ")")


def _run(names: Names, decision: Decision, arguments: Mapping[str, Part]) -> Group:
    """Return the call that runs a DAG."""
    conf = Group("{", [Pair(f"{text_literal(each)}: ", part) for each, part in arguments.items()], "}")
    return Group(f"{names.word('run_dag')}(", [text_literal(decision.starts), *([conf] if arguments else [])], ")")


def _returns(decision: Decision) -> str:
    """Return the return annotation of the step: that of its function, if it has one."""
    if decision.starts:
        return "dict"
    if decision.function is None or decision.through_bash is not None:
        return "str"
    if decision.function.is_imported:  # it may name what only its module has
        return ""
    returns = decision.function.node.returns
    return cst.Module([]).code_for_node(returns.annotation) if returns else ""


def _part(content: Any, values: Variables, word: Callable[[str], str]) -> Part:
    match content:
        case Template():
            return Lines(_f_string(content, values, word), [_f_string(each, values, word) for each in _lines(content)])
        case Asked() if content.parameters or not content.code:
            return Group("{", [Pair(f"{text_literal(each)}: ", each) for each in content.parameters], "}")
        case Asked():
            return _code(content.code, values, word)
        case ValueEdge():
            return values[content.task_id, content.key]
        case Symbolic():
            return content.source
        case list():
            return Group("[", [_part(each, values, word) for each in content], "]")
        case dict():
            pairs = [Pair(f"{text_literal(key)}: ", _part(each, values, word)) for key, each in content.items()]
            return Group("{", pairs, "}")
    return value(content)


def _code(code: Code, values: Variables, word: Callable[[str], str]) -> str:
    made = ""
    for each in code:
        if isinstance(each, ValueEdge):
            made += values[each.task_id, each.key]
        else:
            made += word(each.name) if isinstance(each, Word) else each
    return made


def _lines(template: Template) -> Iterator[Template]:
    """Yield the lines of a text, each with its end."""
    line: list[str | Code] = []
    for part in template.parts:
        if not isinstance(part, str):
            line.append(part)
            continue
        for text in part.splitlines(keepends=True):
            line.append(text)
            if text.endswith("\n"):
                yield Template(tuple(line))
                line = []
    if line:
        yield Template(tuple(line))


def _f_string(template: Template, values: Variables, word: Callable[[str], str]) -> str:
    """Write a text as an f-string in one line."""
    if all(isinstance(part, str) for part in template.parts):
        return text_literal("".join(map(str, template.parts)))
    made = ""
    for part in template.parts:
        if isinstance(part, str):
            made += in_f_string(part)
        else:
            made += f"{{{_code(part, values, word)}}}"
    return f'f"{made}"'
