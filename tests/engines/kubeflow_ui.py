"""What KFP's UI draws of a pipeline: written after its source, ``frontend/src/lib/v2/StaticFlow.ts``.

For each DAG it draws a box for each task, a box for each artifact that a task gives, arrows from a task to its
artifacts and from an artifact to the tasks that take it from its task, and an arrow between two tasks where one takes a
parameter of the other or waits for it. It draws no arrow for what a task takes from the DAG around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Drawn", "drawn"]

Json = dict[str, Any]


@dataclass
class Drawn:
    """What is drawn of one DAG, in the words that the UI shows."""

    tasks: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    arrows: set[tuple[str, str]] = field(default_factory=set)


def drawn(spec: Json) -> dict[str, Drawn]:
    """The root, by the name ``""``, and each DAG in it, by the name of its box."""
    found: dict[str, Drawn] = {}
    waiting = [("", spec["root"])]
    while waiting:
        name, component = waiting.pop(0)
        shown = found[name] = Drawn()
        tasks = component["dag"]["tasks"]
        names = {key: task["taskInfo"]["name"] for key, task in tasks.items()}
        for key, task in tasks.items():
            made = spec["components"][task["componentRef"]["name"]]
            is_dag = "dag" in made
            shown.tasks.append(f"DAG: {names[key]}" if is_dag else names[key])
            if is_dag:
                waiting.append((names[key], made))
            for artifact in made.get("outputDefinitions", {}).get("artifacts", {}):
                assert "." not in artifact, "the UI splits the ids of its boxes at dots"
                shown.artifacts.append(f"{names[key]}/{artifact}")
                shown.arrows.add((names[key], f"{names[key]}/{artifact}"))
            inputs = task.get("inputs", {})
            for given in inputs.get("artifacts", {}).values():
                if origin := given.get("taskOutputArtifact"):
                    shown.arrows.add((f"{names[origin['producerTask']]}/{origin['outputArtifactKey']}", names[key]))
            origins = [
                given.get("taskOutputParameter", {}).get("producerTask")
                for given in inputs.get("parameters", {}).values()
            ]
            for before in (*filter(None, origins), *task.get("dependentTasks", ())):
                shown.arrows.add((names[before], names[key]))
    return found
