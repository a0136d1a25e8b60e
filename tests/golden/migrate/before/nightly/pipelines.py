"""The nightly forecast of a shop: load, train, publish."""
import os

from flowyml.core.context import context
from flowyml.core.pipeline import Pipeline, PipelineResult
from flowyml.core.step import step

SMALL = {"cpu": "1", "memory": "512Mi"}   # what the laptops have


@step(outputs=["sales"], resources=SMALL)
def load_sales(days: int):
    return [100 + day % 7 for day in range(days)]


@step(
    inputs=["sales"],
    outputs=["model"],
    cache=False,
    resources={
        "cpu": "2",  # two are enough
        "memory": "4Gi",
        "gpu": "0",
    },
)
def train(sales):
    return sum(sales) / len(sales)


@step(inputs=["model"], outputs=["forecast"], retry=2)
def predict(model):
    return [round(model, 1)] * 7


def report_step(step_name, duration):
    print(f"{step_name} took {duration:.1f}s")


def page_someone(step_name, error):
    print(f"PAGE: {step_name}: {error}")


ctx = context(days=28)
forecast = Pipeline("forecast", ctx, enable_checkpointing=False, stack=None)
forecast.add_step(load_sales)
forecast.add_step(train).add_step(predict)
forecast.register_callback("on_step_end", report_step)
forecast.register_callback("error", page_someone)


def summary(result: PipelineResult) -> str:
    return f"{result.run_id} in {os.getcwd()}"


if __name__ == "__main__":
    result = forecast.run(context={"days": 14}, debug=False)
    if result.state == "completed":
        print(result.pipeline_name, "is done:", result["forecast"])
