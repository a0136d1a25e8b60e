"""What the fake of KFP's API knows of the pods of a pipeline with control flow: in a loop one for each chunk of items.

The local runner's journal has the turns of steps by item; a cluster has pods, and in the log of each the turns of its
items. Nodes in loops are called as KFP's compiler and Argo call them. Sources: KFP, v2/compiler/argocompiler/dag.go,
``iteratorTask``; Argo, workflow/controller/dag.go, ``expandTask``, and util/util.go, ``GenerateNodeName``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowyml_kubeflow import flow_names, names
from flowyml_kubeflow.attempts import RESULT, printed
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.tasks import steps_shown

Json = dict[str, Any]


def has_flow(spec: Json) -> bool:
    return flow_names.RESULT_TASK in spec["root"]["dag"]["tasks"]


@dataclass(frozen=True)
class Chunk:
    """One pod of a task: of a step, all of its turns or, in a loop, those of some items."""

    folder: RunFolder
    path: str
    task: str
    notes: tuple[Json, ...]
    state: str

    @property
    def started_at(self) -> datetime:
        return datetime.fromtimestamp(self.notes[0]["time"] if self.notes else self._lines()[0]["time"], UTC)

    @property
    def ended_at(self) -> datetime | None:
        last = (self.notes or self._lines())[-1]["time"]
        return None if self.state == "RUNNING" else datetime.fromtimestamp(last, UTC)

    def log(self) -> str:
        """What its launcher printed: the lines of the user's code, and what it noted."""
        lines = [(line["time"], _printed(line)) for line in self._lines()]
        lines += [(note["time"], f"{RESULT}{json.dumps({'note': note})}") for note in self.notes]
        return "".join(f"{text}\n" for _, text in sorted(lines, key=lambda item: item[0]))

    def _lines(self) -> list[Json]:
        turns = dict.fromkeys((note.get("task", self.task), tuple(note.get("index", ()))) for note in self.notes)
        turns = turns or {(self.task, ()): None}
        return [line for turn in turns for line in self.folder.lines(flow_names.turn(*turn), "log.jsonl")]


def chunks_of(folder: RunFolder, path: str, task: Json, *, is_over: bool) -> Iterator[Chunk]:
    """The pods of a task that have begun. ``path`` has ``*`` for the number of the iteration."""
    name = path.rpartition(".")[2]
    notes = folder.notes(name)
    if flow_names.STEPS in task.get("inputs", {}).get("parameters", {}):
        found = [note for step in steps_shown(name, task) for note in folder.notes(step)]
        notes = sorted(found, key=lambda note: float(note["time"]))
    by_chunk: dict[str | None, list[Json]] = {}
    for note in notes:
        by_chunk.setdefault(note.get("chunk"), []).append(note)
    if not notes and folder.lines(name, "log.jsonl"):
        by_chunk[None] = []
    order = sorted(by_chunk, key=lambda chunk: int((chunk or "0").partition(":")[0]))
    for number, chunk in enumerate(order):
        mine = tuple(by_chunk[chunk])
        yield Chunk(folder, path.replace("*", str(number)), name, mine, _state(mine, is_over=is_over))


def _state(notes: tuple[Json, ...], *, is_over: bool) -> str:
    if any("failed" in note for note in notes):
        return "FAILED"
    if not is_over and any("index" in note for note in notes) and "ended" not in notes[-1]:
        return "RUNNING"
    return "SUCCEEDED"


def tasks_of(spec: Json, dag: Json, path: str) -> Iterator[tuple[str, Json]]:
    """The tasks whose pods leave something in their logs, by the names of their nodes."""
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            within = f"{path}.{name}"
            if "parameterIterator" in task:
                within += ".iteration-iterations(*:*).iteration-item"
            yield from tasks_of(spec, component["dag"], within)
        elif not name.startswith(names.BUNDLE_TASK):
            yield f"{path}.{name}", task


def _printed(line: Json) -> str:
    if line["stream"] == "result":
        return str(line["line"])
    level = line.get("level", "INFO")
    return printed(line["line"] if level == "INFO" else f"{level}: {line['line']}")
