"""The nightly forecast of a shop: load, train, publish."""
import os

from flowyml import Pipeline, context, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.resources import ResourceRequirements
from flowyml.core.runs import PipelineResult

SMALL = ResourceRequirements(cpu="1", memory="512Mi")   # what the laptops have


@step(outputs=["sales"], resources=SMALL)
def load_sales(days: int):
    return [100 + day % 7 for day in range(days)]


@step(
    inputs=["sales"],
    outputs=["model"],
    cache=False,
    resources=ResourceRequirements(
        cpu="2",  # two are enough
        memory="4Gi",
        gpu=0,
    ),
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


class ForecastHook(PipelineHook):
    def on_step_end(self, step_name, outputs, duration):
        report_step(step_name, duration)

    def on_error(self, step_name, error):
        page_someone(step_name, error)


forecast = Pipeline("forecast", context=ctx, hooks=[ForecastHook()])
forecast.add_step(load_sales)
forecast.add_step(train).add_step(predict)


def summary(result: PipelineResult) -> str:
    return f"{result.run_id} in {os.getcwd()}"


if __name__ == "__main__":
    result = forecast.run(parameters={"days": 14})
    if result.status == ExecutionStatus.COMPLETED:
        print(result.pipeline, "is done:", result["forecast"])
