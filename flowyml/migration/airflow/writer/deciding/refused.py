"""DAGs that become no pipeline: without tasks, or with a name that makes a module invalid."""

from __future__ import annotations

from collections.abc import Iterator

from flowyml.core.errors import DefinitionError
from flowyml.migration.airflow.model import Place
from flowyml.migration.airflow.writer.deciding.dags import DecidedDag
from flowyml.migration.airflow.writer.deciding.decision import named
from flowyml.migration.airflow.writer.deciding.sections import groups_in
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.plan.names import check_name

__all__ = ["refused_names", "without_tasks"]


def without_tasks(dag: DecidedDag) -> list[Note]:
    """Say why a DAG without tasks cannot be a pipeline; empty for any other DAG."""
    if dag.decisions:
        return []
    to_do = "Write its pipeline by hand, or leave the DAG out."
    return [Note(Kind.REFUSED, "the DAG", dag.model.place, "no tasks of it are known, and a pipeline has steps", to_do)]


def refused_names(dag: DecidedDag) -> list[Note]:
    """Say why a DAG cannot be a pipeline, for each of its names that FlowyML refuses."""
    found: list[Note] = []
    for construct, place, what, name in _names(dag):
        try:
            check_name(name, what)
        except DefinitionError as error:
            to_do = "Change it in the DAG file, and import it again. No pipeline is written until then."
            found.append(Note(Kind.REFUSED, construct, place, str(error), to_do))
    return found


def _names(dag: DecidedDag) -> Iterator[tuple[str, Place, str, str]]:
    """Yield the named parts of a DAG: the part, its location, the kind of its new name, and the name."""
    model = dag.model
    yield "dag_id", model.place, "pipeline", model.dag_id
    yield from (("tag of the DAG", model.place, "tag", tag) for tag in model.tags)
    for group in groups_in(dag.order):
        yield f"task group {group.group.group_id}", group.group.place, "pipeline", group.label
    for each in dag.decisions:
        yield named(each.task), each.task.place, "step", each.name
        for edge in dag.picked.get(each.task.task_id, ()):
            name = f"{edge.task_id}.{edge.key}".removeprefix(each.within)
            yield f"value {edge.key} of {edge.task_id}", each.task.place, "step", name
