"""Sample pipelines that call others, or are connected by names. Their steps are pickled by value."""

from __future__ import annotations

from typing import Any

from flowyml import If, Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.testing.pipelines_parts import flow

__all__ = ["choice_of_old", "flows_by_names", "nested", "nested_failing", "nested_in_groups", "nested_rows"]


@flow
def nested(numbers: Any, double: Any, add: Any, total: Any, start: int = 3) -> Any:
    """A pipeline that is called twice, one within one within one, and one that is connected by names."""

    @pipeline(name="prepare", context={"b": 1000})
    def prepare(count: int = 2) -> Any:
        rows = numbers(count)
        return {"rows": rows, "sum": add(total(rows))}

    @pipeline(name="pair")
    def pair(n: int) -> Any:
        return add.options(name="less")(n, -1), add.options(name="more")(n, 1)

    @pipeline(name="innermost")
    def innermost(n: int) -> Any:
        return double(n)

    @pipeline(name="middle")
    def middle(n: int) -> Any:
        return innermost(double(n))

    @step(outputs=["values"])
    def values(count: int) -> list[int]:
        print(f"values up to {count}")
        return list(range(count))

    by_names = Pipeline("by_names", context={"count": 3}).add_step(values).add_step(total)

    first = prepare(start)
    second = prepare(count=first["sum"])
    less, more = pair(first["sum"])
    return {
        "rows": first["rows"],
        "sum": first["sum"],
        "of the second": second["sum"],
        "by default": prepare()["sum"],
        "less": less,
        "more": more,
        "innermost": middle(1),
        "by names": by_names(count=4),
    }


@flow
def nested_failing(same: Any, risky: Any) -> Any:
    """A step of an inner pipeline fails; neither its successors in it run, nor the step that takes its output."""

    @pipeline(name="check")
    def check(n: int) -> Any:
        return same(risky(n))

    same.options(name="good")(check(1))
    same.options(name="bad")(check(-1))


@flow
def nested_in_groups(numbers: Any, double: Any, add: Any, total: Any, same: Any, limit: int = 1) -> Any:
    """Pipelines that are called in a loop and in branches, and contain loops and branches themselves."""

    @pipeline(name="doubled")
    def doubled(count: int) -> Any:
        return total(double.map(n=numbers(count)))

    @pipeline(name="graded")
    def graded(n: int) -> Any:
        with when(add.options(name="of")(n) > 2, name="large"):
            large = same.options(name="large")("large")
        with otherwise(name="small"):
            small = same.options(name="small")("small")
        return same.options(name="grade")(either(large, small))

    with for_each([2, 3], name="counts") as count:
        grades = graded(count)
    with when(add.options(name="two")(2) > limit, name="taken"):
        taken = graded(5)
        in_branch = doubled(3)
    with otherwise(name="untaken"):
        untaken = graded(0)
        never = doubled(2)
    return {
        "sum": either(in_branch, never),
        "grades": same.options(name="list of grades")(grades),
        "taken": same.options(name="grade of a branch")(either(taken, untaken)),
    }


@flow
def nested_rows(numbers: Any, double: Any, total: Any, same: Any) -> Any:
    """A pipeline with a loop that is called in a loop."""

    @pipeline(name="doubled")
    def doubled(count: int) -> Any:
        return total(double.map(n=numbers(count)))

    with for_each([2, 3], name="counts") as count:
        sums = doubled(count)
    return {"sums": same.options(name="list of sums")(sums)}


def _search(folder: str, name: str) -> tuple[Pipeline, Any, Any, Any]:
    """A search that is connected by names, the steps of which one is to run, and the step that takes its output."""

    @step(outputs=["configs"])
    def configs(count: int) -> list[int]:
        return list(range(count))

    @step(outputs=["score"])
    def train(config: int, rate: int) -> int:
        return config * rate

    @step(outputs=["best"])
    def best(score: list[int]) -> int:
        return max(score)

    @step(outputs=["text"])
    def publish(best: int) -> str:
        return f"published {best}"

    @step(outputs=["text"])
    def hold(best: int) -> str:
        return f"held {best}"

    @step(outputs=["words"])
    def tell(text: str) -> str:
        return text.upper()

    made = Pipeline(name, context={"count": 3, "rate": 10, "limit": 15})
    return made.add_step(configs).add_step(train.map(config="configs")).add_step(best), publish, hold, tell


def flows_by_names(folder: str) -> Pipeline:
    """A loop and two branches with outputs of one name, all by names."""
    made, publish, hold, tell = _search(folder, "conformance flows by names")
    with made.when(lambda it: it.best > it.limit):
        made.add_step(publish)
    with made.otherwise():
        made.add_step(hold)
    return made.add_step(tell)


def choice_of_old(folder: str) -> Pipeline:
    """The same choice in the notation of FlowyML 0.x."""
    made, publish, hold, tell = _search(folder, "conformance choice of old")
    condition: Any = lambda context: context.steps["best"].outputs["best"] > 15  # noqa: E731  # as users write it
    return made.add_control_flow(If(condition=condition, then_step=publish, else_step=hold)).add_step(tell)
