"""From a command line to a call: by a quick way for lines that are plainly right, else by Typer.

Typer writes help and completion and explains mistakes; importing it, and the pydantic with which it reads each value,
takes longer than most commands. Both ways read the same declarations (``flowyml.cli.options``), and a property test
holds them to the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS", "Call", "app", "read"]

Command = Callable[..., "int | None"]
Call = Callable[[], "int | None"]

COMMANDS: Mapping[str, str] = {
    "run": "running:run",
    "deploy": "running:deploy",
    "compile": "compiling:compile_",
    "bundle": "compiling:bundle",
    "graph": "compiling:graph",
    "runs": "reading:runs",
    "status": "reading:status",
    "watch": "reading:watch",
    "logs": "reading:logs",
    "artifacts": "reading:artifacts",
    "outputs": "reading:outputs",
    "cancel": "reading:cancel",
    "retry": "reading:retry",
    "trigger": "operating:trigger",
    "clear": "operating:clear",
    "backfill": "operating:backfill",
    "prune": "housekeeping:prune",
    "schedule create": "schedules:create",
    "schedule list": "schedules:list_",
    "schedule pause": "schedules:pause",
    "schedule resume": "schedules:resume",
    "schedule delete": "schedules:delete",
    "schedule serve": "schedules:serve",
    "migrate": "migrate:migrate",
    "cache list": "caches:list_",
    "cache show": "caches:show",
    "cache clear": "caches:clear",
    "airflow adopt": "airflow:adopt",
    "airflow cutover": "airflow:cutover",
    "airflow compare": "airflow:compare",
    "secrets check": "secrets:check",
    "import airflow": "importing:airflow",
    "backends": "backends:backends",
    "backends show": "backends:show",
    "backends sign-in": "backends:sign_in",
    "backends stop": "backends:stop",
}
_PANELS = {
    "running": "Run",
    "compiling": "Make",
    "reading": "Look at runs",
    "operating": "Operate deployed pipelines",
    "housekeeping": "Engines",
    "schedules": "Schedule",
    "migrate": "Move here",
    "caches": "Look at runs",
    "airflow": "Move here",
    "secrets": "Engines",
    "importing": "Move here",
    "backends": "Engines",
}
_GROUPS = {
    "cache": "List and delete cached step results.",
    "schedule": "Schedule pipelines on an engine.",
    "airflow": "Move DAGs away from a running Airflow, one by one.",
    "secrets": "Check the secrets that steps name.",
    "import": "Import pipelines from another tool.",
    "backends": "",
}


def read(arguments: Sequence[str]) -> Call:
    """What a command line asks for, ready to be called. Raises Typer's errors for one that makes no sense."""
    if list(arguments) == ["--version"]:
        return _show_version
    if "_FLOWYML_COMPLETE" not in os.environ:
        from flowyml.cli.fast_parse import parse

        for words in (2, 1):
            name = " ".join(arguments[:words])
            if len(arguments) >= words and name in COMMANDS:
                command = _function(name)
                values = parse(command, arguments[words:])
                return _by_typer(arguments) if values is None else partial(command, **values)
    return _by_typer(arguments)


def app(called: Callable[[Call], None]) -> typer.Typer:
    """The whole application for Typer; a command does not run, but hands its call to ``called``."""
    import typer

    made = typer.Typer(
        help="Write a pipeline once in plain Python; choose the engine when you run it.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    made.callback(invoke_without_command=True)(_root(called))
    groups: dict[str, typer.Typer] = {}
    for name, place in COMMANDS.items():
        panel = _PANELS[place.partition(":")[0]]
        group, _, leaf = name.rpartition(" ")
        function = _declared(_function(name), called)
        if name in _GROUPS:
            groups[name] = typer.Typer(invoke_without_command=True)
            groups[name].callback()(_unless_subcommand(function))
            made.add_typer(groups[name], name=name, rich_help_panel=panel)
        elif group:
            if group not in groups:
                groups[group] = typer.Typer(no_args_is_help=True, help=_GROUPS[group])
                made.add_typer(groups[group], name=group, rich_help_panel=panel)
            groups[group].command(leaf)(function)
        else:
            made.command(leaf, rich_help_panel=panel)(function)
    return made


def _by_typer(arguments: Sequence[str]) -> Call:
    calls: list[Call] = []
    try:
        result = app(calls.append)(args=list(arguments), prog_name="flowyml", standalone_mode=False)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # which Typer turns into an exit code of 1
            raise ended.__context__ from None
        raise
    return calls[-1] if calls else lambda: result if isinstance(result, int) else 0


def _function(name: str) -> Command:
    room, _, function = COMMANDS[name].partition(":")
    found: Command = getattr(import_module(f"flowyml.cli.{room}"), function)
    return found


def _declared(command: Command, called: Callable[[Call], None]) -> Callable[..., None]:
    """A function with Typer's own declarations in place of ours."""
    import inspect
    from functools import wraps
    from typing import get_type_hints

    hints = get_type_hints(command, include_extras=True)

    @wraps(command)
    def handed(**values: Any) -> None:
        called(partial(command, **values))

    signature = inspect.signature(command)
    parameters = [
        parameter.replace(annotation=_for_typer(hints[name], parameter.default))
        for name, parameter in signature.parameters.items()
    ]
    handed.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]  # inspect's protocol
    handed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    handed.__doc__ = "\n\n".join(" ".join(each.split()) for each in paragraphs)  # the terminal's width breaks lines
    return handed


def _for_typer(hint: Any, default: object) -> Any:
    from typing import Annotated

    import typer

    from flowyml.cli.options import Argument

    plain, declared = hint.__origin__, hint.__metadata__[0]
    if isinstance(declared, Argument):
        return Annotated[plain, typer.Argument(metavar=declared.metavar, help=declared.help, show_default=False)]
    shown = declared.metavar is None and default is not False
    option = typer.Option(
        *declared.names, help=declared.help, metavar=declared.metavar, min=declared.min, show_default=shown
    )
    return Annotated[plain, option]


def _root(called: Callable[[Call], None]) -> Callable[..., None]:
    from typing import Annotated

    import typer

    def root(context: typer.Context, version: bool = False) -> None:
        if version:
            called(_show_version)
        elif context.invoked_subcommand is None:
            help_text = context.get_help()
            called(lambda: print(help_text))

    option = Annotated[bool, typer.Option("--version", help="Show the version and exit.")]
    root.__annotations__ = {"context": typer.Context, "version": option}
    return root


def _show_version() -> None:
    from flowyml._version import __version__

    print(f"flowyml {__version__}")


def _unless_subcommand(function: Callable[..., None]) -> Callable[..., None]:
    import inspect
    from functools import wraps

    import typer

    @wraps(function)
    def alone(context: typer.Context, **values: Any) -> None:
        if context.invoked_subcommand is None:
            function(**values)

    signature = inspect.signature(function)
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    alone.__signature__ = signature.replace(parameters=[context, *signature.parameters.values()])  # type: ignore[attr-defined]  # inspect's protocol
    alone.__annotations__ = {"context": typer.Context, **function.__annotations__}
    return alone
