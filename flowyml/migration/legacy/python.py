"""Apply all rules to a Python text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from flowyml.migration.legacy.callbacks import replace_callbacks
from flowyml.migration.legacy.checklist import Note, unaccepted
from flowyml.migration.legacy.definitions import check_subclasses, replace_options, replace_resources
from flowyml.migration.legacy.imports import move_imports, with_imports
from flowyml.migration.legacy.kinds import Kinds
from flowyml.migration.legacy.source import Source
from flowyml.migration.legacy.statuses import replace_statuses
from flowyml.migration.legacy.submissions import replace_ids

_WORDS = re.compile(r"\b(flowyml\w*|get_run_status|run_pipeline|register_callback)\b")


@dataclass(frozen=True)
class Migrated:
    """A new text, the notes about it, and the lines that a person should try.

    A pipeline's line is listed with the function that creates it, with ``__main__`` if only the file as a script does,
    or with "" at module level.
    """

    text: str
    notes: Sequence[Note]
    pipelines: Sequence[tuple[int, str]] = ()
    submissions: Sequence[int] = ()


def uses_flowyml(text: str) -> bool:
    """Return whether a Python text has a word that only code for FlowyML has: other texts are not read."""
    return _WORDS.search(text) is not None


def migrate_python(text: str) -> Migrated:
    """Apply every rule to a text with ``\\n`` or ``\\r\\n`` line ends. Raises ``Unreadable``."""
    source = Source(text)
    kinds = Kinds(source)
    for rule in (
        replace_statuses, replace_ids, replace_callbacks, replace_resources, replace_options, check_subclasses
    ):  # fmt: skip
        rule(source, kinds)
    move_imports(source)
    calls = source.nodes(cst.Call)
    return Migrated(
        with_imports(source.edited(), source.wanted_imports, source.moved).code,
        unaccepted(source.notes, text),
        [(source.line(call), _maker(source, call)) for call in calls if source.flowyml_name(call.func) == "Pipeline"],
        [source.line(call) for call in calls if _is_remote(kinds, call)],
    )


def _maker(source: Source, node: cst.CSTNode) -> str:
    """Return the function around a node, or ``__main__`` for one that runs in a script alone; "" at module level."""
    found, guarded = source.parents.get(node), ""
    while found is not None:
        if isinstance(found, cst.FunctionDef):
            return found.name.value
        if isinstance(found, cst.If) and "__main__" in source.module.code_for_node(found.test):
            guarded = "__main__"
        found = source.parents.get(found)
    return guarded


def _is_remote(kinds: Kinds, call: cst.Call) -> bool:
    return (
        isinstance(call.func, cst.Attribute)
        and call.func.attr.value == "run_pipeline"
        and kinds.of(call.func.value) == "orchestrator"
    )
