"""The result for each construct of a DAG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flowyml.migration.airflow.model import Place

MARK = "Written by `flowyml import airflow`"
"""The mark in each module and each file of a report."""


class Kind(StrEnum):
    """The degree to which a construct is in the pipeline."""

    KEPT = "kept"
    CHANGED = "changed"
    OPAQUE = "opaque"
    REFUSED = "refused"


class Verdict(StrEnum):
    """The engines that can run a pipeline."""

    ANY = "any engine"
    AIRFLOW = "Airflow only"
    HAND = "needs a hand"


@dataclass(frozen=True, slots=True)
class Note:
    """One construct (``task extract``, ``schedule``): its result, the reason, and advice.

    ``airflow_only`` is True if it runs only on Airflow although it is not an operator.
    """

    kind: Kind
    construct: str
    place: Place
    reason: str = ""
    to_do: str = ""
    airflow_only: bool = False


@dataclass(frozen=True, slots=True)
class DagResult:
    """A DAG: the name of its pipeline in the module, "" for none, and its notes.

    ``added`` has the names of steps without a task of the DAG, for the report.
    """

    dag_id: str
    pipeline: str
    place: Place
    notes: Sequence[Note]
    added: frozenset[str] = frozenset()

    @property
    def verdict(self) -> Verdict:
        """The engines that can run the pipeline as it was written."""
        if any(note.kind is Kind.REFUSED for note in self.notes):
            return Verdict.HAND
        held = any(note.kind is Kind.OPAQUE or note.airflow_only for note in self.notes)
        return Verdict.AIRFLOW if held else Verdict.ANY


@dataclass(frozen=True, slots=True)
class Beside:
    """A module that a written module imports at a path.

    ``source`` is its file in the repository, ``copy`` that below the output folder, or "" with the reason. For a module
    that Airflow imports by name, ``reason`` says so.
    """

    name: str
    place: Place
    source: str = ""
    copy: str = ""
    reason: str = ""
    to_do: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """True if the module is of a package that the repository lacks, and that may have to be installed."""
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
