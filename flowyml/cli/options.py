"""The parameters of commands, as plain data: ``Annotated[str, Argument(…)]``. ``app`` converts them to click's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

__all__ = ["Argument", "AsJson", "File", "Force", "Job", "OfPipeline", "On", "Option", "Parameters", "RunId", "Timeout"]


@dataclass(frozen=True, slots=True)
class Argument:
    """A word of the command line."""

    metavar: str
    help: str


@dataclass(frozen=True, slots=True)
class Option:
    """``--name VALUE``, or ``--name`` alone for a bool. Without a ``metavar`` the default is shown in the help.

    ``bare`` is the value of ``--name`` alone, where the value may be left out.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    min: float | None = None
    bare: str | None = None


File = Annotated[
    str, Argument("FILE[:NAME]", "A Python file, package.module or bundle (.pyz); NAME picks one of several pipelines.")
]
Job = Annotated[
    str,
    Argument(
        "RUN", "An id that `run` and `runs` show: short id, run id, job id; the first 8 digits of a UUID will do."
    ),
]
On = Annotated[
    str | None,
    Option(
        ("--on",),
        "An engine, a configured target, or a server's URL; else FLOWYML_ORCHESTRATOR, else local.",
        metavar="TARGET",
    ),
]
Parameters = Annotated[
    list[str] | None,
    Option(("--parameter", "-p"), "A parameter of the run, as JSON or plain text. Repeatable.", metavar="NAME=VALUE"),
]
RunId = Annotated[str | None, Option(("--run-id",), "Submitting an id again returns the same run.", metavar="ID")]
Timeout = Annotated[
    float | None,
    Option(("--timeout",), "Stop waiting after this time (exit code 124); the run goes on.", metavar="SECONDS", min=0),
]
OfPipeline = Annotated[str | None, Option(("--pipeline",), "Only those of this pipeline.", metavar="NAME")]
Force = Annotated[
    bool, Option(("--force",), "Replace what another pipeline of this name deployed, or what was changed by hand.")
]
AsJson = Annotated[bool, Option(("--json",), "Print JSON, and nothing else on standard output.")]
