"""The checklist of the migration guide, and the progress of a project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

#: A comment with this text marks a line that a person has accepted: it is no longer reported.
ACCEPTED = "flowyml-migrate: ok"


class Item(Enum):
    """A line of the checklist, in the guide's words and order; the last two are only shown in the guide."""

    PINS = "Update flowyml to version 1.0"
    STATUSES = "Replace raw status string comparisons with ExecutionStatus"
    SUBMISSIONS = "Update remote execution code to handle SubmissionResult"
    CALLBACKS = "Migrate register_callback() calls to lifecycle hooks"
    RESOURCES = "Replace dict-style resources={} with ResourceRequirements"
    TEST_LOCALLY = "Test all pipelines locally with pipeline.run()"
    TEST_REMOTELY = "Test remote pipelines with submission.wait_for_completion()"
    SCRIPTS = "Update CI/CD scripts that parse status strings"
    SUBCLASSES = "Review custom Pipeline subclasses for compatibility"
    TEST_ALL = "Run full integration test suite"
    IMPORTS = "Import from where names live in 1.0"
    OPTIONS = "Replace options that have gone or moved"

    @property
    def is_a_test(self) -> bool:
        """True if a person has to run the item: no file shows that it was done."""
        return self in (Item.TEST_LOCALLY, Item.TEST_REMOTELY, Item.TEST_ALL)


@dataclass(frozen=True, order=True)
class Place:
    """A source location of an item. ``line`` counts from 1, in a notebook from the top of ``cell``."""

    path: str
    line: int
    message: str
    cell: int | None = None

    def __str__(self) -> str:
        cell = "" if self.cell is None else f"cell {self.cell}:"
        return f"{self.path}:{cell}{self.line}"


@dataclass(frozen=True)
class Note:
    """A finding in one file: a change, or a task for a person."""

    item: Item
    line: int
    message: str
    is_done: bool


def unaccepted(notes: Iterable[Note], text: str) -> list[Note]:
    """Return the notes without those at lines that a person has accepted, without duplicates, in the order of lines."""
    lines = text.split("\n")
    accepted = {number for number, line in enumerate(lines, 1) if ACCEPTED in line}
    kept = {note: None for note in notes if note.is_done or note.line not in accepted}
    return sorted(kept, key=lambda note: note.line)
