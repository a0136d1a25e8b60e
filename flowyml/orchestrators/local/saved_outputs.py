"""Record results of steps for a retry.

Small values are recorded at once, since the process may be killed, others when the run has ended without completing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, is_reference, open_store
from flowyml.artifacts.packing import REFERENCE, read_reference
from flowyml.artifacts.store import Store
from flowyml.core.home import private_folder
from flowyml.orchestrators.local.engine import LocalTask
from flowyml.orchestrators.local.lent_values import is_quickly_copied
from flowyml.orchestrators.local.outputs import SMALL, entry_of, pickle_entry, plain_entry
from flowyml.orchestrators.local.retrying import Recorded
from flowyml.orchestrators.local.schema import SavedRow, item_of
from flowyml.orchestrators.local.step_call import Stored
from flowyml.runtime.decider import End
from flowyml.runtime.nodes import Task

__all__ = ["OutputSaver", "saved_rows"]


class OutputSaver:
    """Called with the outputs of a step before any consumer gets them; passes the rows to ``note``.

    ``values`` is the folder for files of steps in processes during the run, ``folder`` the one in which they stay.
    """

    def __init__(self, note: Callable[[SavedRow], object], values: Path, folder: Path) -> None:
        self._note = note
        self._values = values
        self._folder = folder

    def __call__(self, node: LocalTask, outputs: Mapping[str, Any]) -> None:
        for output, value in outputs.items():
            with suppress(Exception):  # then its step runs again; whatever the class of the value raises
                if entry := self._entry(node, output, value):
                    self._note(SavedRow(node.position, node.row.item, output, json.dumps(entry)))

    def _entry(self, node: LocalTask, output: str, value: Any) -> dict[str, Any] | None:
        if type(value) is Recorded:  # an output that an earlier run did not keep
            return dict(value.entry)
        if type(value) is Stored:
            return self._stored_entry(node, output, value.packed)
        if entry := plain_entry(value):
            return entry
        is_file = isinstance(value, Path) and value.exists()  # its content is stored
        return pickle_entry(value) if is_quickly_copied(value, SMALL) and not is_file else None

    def _stored_entry(self, node: LocalTask, output: str, packed: Any) -> dict[str, Any] | None:
        """Rename its file: nothing is unpacked, since this process may lack the imports."""
        if not is_reference(packed):
            return {"value": packed}
        written, _ = read_reference(packed[REFERENCE])
        if written.size > SMALL:
            return None
        store = _private_store(self._folder)
        kept = store.take(open_store(self._values), written, artifact_key("values", node.label, 1, output))
        about = {name: part for name, part in packed[REFERENCE].items() if name != "picture"}
        return {"artifact": {REFERENCE: {**about, "url": kept.url}}, "store": store.url}


def saved_rows(
    tasks: Iterable[Task], as_returned: Callable[[Any], Any], folder: Path, max_bytes: float
) -> Iterator[SavedRow]:  # fmt: skip
    """Yield the outputs that incomplete steps need. Large ones go to ``folder``, if they are stored.

    ``as_returned`` returns a value as its step returned it, or raises if it is not available.
    """
    for task in tasks:
        for output, value in task.values.items() if task.end is End.OK else ():
            if not task.uses.get(output) or type(value) is Recorded:
                continue
            with suppress(Exception):  # then its step runs again; whatever the class of the value raises
                entry = entry_of(
                    f"Output {output!r} of step {task.label!r}", as_returned(value), partial(_private_store, folder),
                    partial(artifact_key, "values", task.label, 1, output), max_bytes,
                )  # fmt: skip
                yield SavedRow(task.position, item_of(task.index), output, json.dumps(entry))


def _private_store(folder: Path) -> Store:
    return open_store(private_folder(folder))
