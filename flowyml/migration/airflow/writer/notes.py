"""What became of each construct of a DAG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flowyml.migration.airflow.model import Place

__all__ = ["MARK", "Beside", "DagResult", "FileResult", "Kind", "Note", "Verdict"]

MARK = "Written by `flowyml import airflow`"
"""What each module and each file of a report says."""


class Kind(StrEnum):
    """How much of a construct there is in the pipeline."""

    KEPT = "kept"
    CHANGED = "changed"
    OPAQUE = "opaque"
    REFUSED = "refused"


class Verdict(StrEnum):
    """Where a pipeline runs."""

    ANY = "any engine"
    AIRFLOW = "Airflow only"
    HAND = "needs a hand"


@dataclass(frozen=True, slots=True)
class Note:
    """One construct: what it is (``task extract``, ``schedule``), what became of it, why, and what to do.

    ``airflow_only`` says that it runs on Airflow alone although it is not an operator.
    """

    kind: Kind
    construct: str
    place: Place
    reason: str = ""
    to_do: str = ""
    airflow_only: bool = False


@dataclass(frozen=True, slots=True)
class DagResult:
    """A DAG: the name of its pipeline in the module, "" for none, its notes, and when the module schedules it.

    ``schedule`` is ``None``, ``cron:FIELDS ZONE`` or ``delta:SECONDS``, as a word. ``added`` names the steps that no
    task of the DAG stands for, as the report says.
    """

    dag_id: str
    pipeline: str
    place: Place
    notes: Sequence[Note]
    schedule: str = "None"
    added: frozenset[str] = frozenset()

    @property
    def verdict(self) -> Verdict:
        """Where the pipeline runs as it was written."""
        if any(note.kind is Kind.REFUSED for note in self.notes):
            return Verdict.HAND
        held = any(note.kind is Kind.OPAQUE or note.airflow_only for note in self.notes)
        return Verdict.AIRFLOW if held else Verdict.ANY


@dataclass(frozen=True, slots=True)
class Beside:
    """A module that is imported at a place by what was written.

    ``source`` is its file in the repository, ``copy`` that below the folder of all, or "" with the reason. One that
    Airflow imports by its name says so in ``reason``.
    """

    name: str
    place: Place
    source: str = ""
    copy: str = ""
    reason: str = ""
    to_do: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is of a package that the repository has not, one to be installed perhaps."""
        return not self.source and "." not in self.name


@dataclass(frozen=True, slots=True)
class FileResult:
    """A file: its original text, the module that was written from it, if any, or the reason why there is none.

    ``is_failed``: it has DAGs, but no module could be written from it. ``beside`` are the other modules that the
    written one imports.
    """

    path: str
    original: str = ""
    written: str = ""
    module: str = ""
    dags: Sequence[DagResult] = ()
    reason: str = ""
    is_failed: bool = False
    beside: Sequence[Beside] = ()
