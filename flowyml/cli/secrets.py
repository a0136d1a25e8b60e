"""``flowyml secrets``: whether an engine has the secrets that a pipeline names."""

from __future__ import annotations

from flowyml.cli.options import AsJson, File, On
from flowyml.cli.output import Output, Word
from flowyml.cli.source import load
from flowyml.orchestrators.targets import resolve

__all__ = ["check"]

_NOT_FOUND = 4


def check(file: File, on: On = None, as_json: AsJson = False) -> int:
    """Say which secrets of a pipeline an engine lacks, before anything runs. Exits with 4 when one is missing."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        plan = orchestrator.plan(load(file))
        steps: dict[str, list[str]] = {}
        for step in plan:
            for reference in dict.fromkeys(step.secrets.values()):
                steps.setdefault(reference, []).append(step.name)
        missing = orchestrator.missing_secrets(tuple(steps)) if steps else {}
        if as_json:
            out.document([
                {"secret": name, "steps": users, "found": name not in missing, "problem": missing.get(name)}
                for name, users in steps.items()
            ])  # fmt: skip
        elif not steps:
            out.line(f"{plan.name} names no secrets.")
        else:
            out.table(
                ("SECRET", "", "STEPS"),
                [(name, _state(name in missing), ", ".join(users)) for name, users in steps.items()],
            )
            for problem in missing.values():
                out.text(problem)
        return _NOT_FOUND if missing else 0


def _state(is_missing: bool) -> Word:
    return Word("missing", "red") if is_missing else Word("found", "green")
