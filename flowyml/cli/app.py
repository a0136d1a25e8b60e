"""Parse a command line into a call, with click; rich-click writes the help, and imports Rich only for that.

A command's module is imported when the command is named: most commands take less time than importing all modules.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from rich_click import RichArgument, RichCommand, RichGroup, RichOption

from flowyml._version import __version__
from flowyml.cli.options import Argument, Option

__all__ = ["Call", "app", "read"]

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
    "compare": "comparing:compare",
    "cancel": "reading:cancel",
    "retry": "reading:retry",
    "trigger": "operating:trigger",
    "clear": "operating:clear",
    "backfill": "operating:backfill",
    "undeploy": "operating:undeploy",
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
    "cache explain": "caches:explain",
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
    "comparing": "Look at runs",
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
    "cache": "List, explain and delete cached step results.",
    "schedule": "Schedule pipelines on an engine.",
    "airflow": "Move DAGs away from a running Airflow, one by one.",
    "secrets": "Check the secrets that steps name.",
    "import": "Import pipelines from another tool.",
}

_BETWEEN_PARAGRAPHS = {"text_paragraph_linebreaks": "\n\n", "padding_helptext_first_line": (0, 0, 1, 0)}
_SETTINGS = {"help_option_names": ["-h", "--help"], "rich_help_config": _BETWEEN_PARAGRAPHS}
_COMPLETE = "_FLOWYML_COMPLETE"  # click's name for the variable by which a shell asks


class _Group(RichGroup):
    """The commands of COMMANDS whose names begin with this group's. Without a command it shows its help."""

    def __init__(self, name: str, **attributes: Any) -> None:
        usage = "COMMAND [ARGS]..."
        super().__init__(
            name=name, invoke_without_command=True, subcommand_metavar=usage, context_settings=_SETTINGS, **attributes
        )
        self._prefix = f"{name} " if name else ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        rests = [name.removeprefix(self._prefix) for name in COMMANDS if name.startswith(self._prefix)]
        return list(dict.fromkeys(rest.split()[0] for rest in rests))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(f"{self._prefix}{cmd_name}") if cmd_name in self.list_commands(ctx) else None


def read(arguments: Sequence[str]) -> Call:
    """Parse a command line into a call. Raises ``click.ClickException`` for an invalid one."""
    root = app()
    if _COMPLETE in os.environ:
        root.main(list(arguments), prog_name="flowyml")  # answers the shell and exits
    try:
        with root.make_context("flowyml", list(arguments)) as context:
            call: Call = root.invoke(context)
    except click.exceptions.Exit as ended:  # help, the version or a script was printed
        return partial(int, ended.exit_code)
    return call


def app() -> click.Group:
    """Create the application. Invoking one of its commands returns the command's call, and does not run it."""
    options: list[click.Parameter] = [
        RichOption(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
            help="Show the version and exit.",
        ),
        RichOption(
            ["--show-completion"], is_flag=True, is_eager=True, expose_value=False, callback=_show_completion,
            help="Print the code that completes commands in the current shell, to append to its start-up file.",
        ),
    ]  # fmt: skip
    help_text = "Write a pipeline once in plain Python; choose the engine when you run it."
    return _Group("", params=options, callback=_show_help, help=help_text)


def _command(name: str) -> click.Command:
    command: RichCommand
    if name not in COMMANDS:
        module = next(place for other, place in COMMANDS.items() if other.startswith(f"{name} ")).partition(":")[0]
        command = _Group(name, callback=_show_help, help=_GROUPS[name])
    else:
        module, _, attribute = COMMANDS[name].partition(":")
        function = getattr(import_module(f"flowyml.cli.{module}"), attribute)
        hints = get_type_hints(function, include_extras=True)
        paragraphs = inspect.cleandoc(function.__doc__).split("\n\n")
        attributes: dict[str, Any] = {
            "params": [_parameter(text, hints[text.name]) for text in inspect.signature(function).parameters.values()],
            "callback": _caller(function),
            "help": "\n\n".join(" ".join(text.split()) for text in paragraphs),  # the terminal's width breaks lines
        }
        if any(other.startswith(f"{name} ") for other in COMMANDS):
            command = _Group(name, **attributes)
        else:
            command = RichCommand(name=name.rpartition(" ")[2], context_settings=_SETTINGS, **attributes)
    if " " not in name:
        command.panel = _PANELS[module]
    return command


def _parameter(parameter: inspect.Parameter, hint: Any) -> click.Parameter:
    declared: Argument | Option = hint.__metadata__[0]
    kind = hint.__origin__
    if isinstance(kind, UnionType):  # with None
        kind = get_args(kind)[0]
    is_list = get_origin(kind) is list
    is_required = parameter.default is parameter.empty
    attributes = {
        "type": _type(get_args(kind)[0] if is_list else kind, declared), "required": is_required,
        "help": declared.help, "metavar": declared.metavar,
    }  # fmt: skip
    if not is_required:
        attributes["default"] = parameter.default
    if isinstance(declared, Argument):
        return RichArgument([parameter.name], nargs=-1 if is_list else 1, **attributes)
    shows_default = declared.metavar is None and kind is not bool
    return RichOption(
        [parameter.name, *declared.names], is_flag=kind is bool, multiple=is_list, show_default=shows_default,
        **({"flag_value": declared.bare} if declared.bare else {}), **attributes,
    )  # fmt: skip


def _type(kind: Any, declared: Argument | Option) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:
        return click.Path(path_type=Path)
    if isinstance(declared, Option) and declared.min is not None:
        return click.IntRange(min=int(declared.min)) if kind is int else click.FloatRange(min=declared.min)
    return kind


def _caller(function: Callable[..., int | None]) -> Callable[..., Call | None]:
    """Return a function that returns the call of a command instead of running it.

    None if a command of its group follows.
    """

    @wraps(function)
    def caller(**values: Any) -> Call | None:
        if click.get_current_context().invoked_subcommand is not None:
            return None
        return partial(function, **{name: list(it) if isinstance(it, tuple) else it for name, it in values.items()})

    return caller


def _show_help() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), color=context.color)
        context.exit(2 if context.parent else 0)


def _show_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        print(f"flowyml {__version__}")
        context.exit()


def _show_completion(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    from click.shell_completion import get_completion_class

    if is_asked:
        shell = Path(os.environ.get("SHELL", "")).name
        complete = get_completion_class(shell)
        if complete is None:
            raise click.UsageError(f"$SHELL is {shell or 'not set'}. Set it to bash, fish or zsh for completion.")
        print(complete(context.command, {}, "flowyml", _COMPLETE).source())
        context.exit()
