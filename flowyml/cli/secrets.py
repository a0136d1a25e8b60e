"""``flowyml secrets``: check that an engine has the secrets that a pipeline names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowyml.cli.errors import NOT_FOUND
from flowyml.cli.options import AsJson, File, On
from flowyml.cli.output import Output, Word
from flowyml.cli.source import load
from flowyml.orchestrators.targets import resolve

__all__ = ["check"]


def check(file: File, on: On = None, as_json: AsJson = False) -> int:
    """Say which secrets of a pipeline an engine lacks, before anything runs. Exits with 4 when one is missing."""
    with Output(as_json) as out:
        orchestrator, pipeline = resolve(on), load(file)
        orchestrator.plan(pipeline)  # which refuses plans that the engine cannot run
        steps: dict[str, list[str]] = {}
        for step in pipeline.compile():
            for reference in dict.fromkeys(step.secrets.values()):
                steps.setdefault(reference, []).append(step.name)
        there = {name: orchestrator.secrets.get(name, name) for name in steps}
        missing = orchestrator.missing_secrets(tuple(dict.fromkeys(there.values()))) if steps else {}
        if as_json:
            out.document([
                {
                    "secret": name, "stored_as": there[name], "steps": users, "found": there[name] not in missing,
                    "problem": missing.get(there[name]),
                }
                for name, users in steps.items()
            ])  # fmt: skip
        elif not steps:
            out.line(f"{pipeline.name} names no secrets.")
        else:
            _print_table(out, steps, there, missing)
        return NOT_FOUND if missing else 0


def _print_table(
    out: Output, steps: Mapping[str, Sequence[str]], there: Mapping[str, str], missing: Mapping[str, str]
) -> None:
    """Print the names that the steps use, and those in the engine's store, if one differs."""
    words = {True: Word("missing", "red"), False: Word("found", "green")}
    rows = [(name, there[name], words[there[name] in missing], ", ".join(users)) for name, users in steps.items()]
    if any(name != stored for name, stored, *_ in rows):
        out.table(("SECRET", "STORED AS", "", "STEPS"), rows)
    else:
        out.table(("SECRET", "", "STEPS"), [(name, *others) for name, _, *others in rows])
    for problem in missing.values():
        out.text(problem)
