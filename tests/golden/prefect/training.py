@task(
    name="load",
    task_run_name="load",
    description="Reads the data.",
    retries=2,
    retry_delay_seconds=[10, 20.0],
    retry_condition_fn=retry_on(["OOM", "Timeout"]),
)
def load(rows: int, source: str) -> Values | State[Any]:
    return run_step("load", {"rows": rows, "source": source}, secrets={"password": "Warehouse/password"})


@task(name="train model", task_run_name="train model", tags=["heavy"], timeout_seconds=900 + GRACE)
def train_model(load: Values, rate: float | None, form: dict[str, Any]) -> Values | State[Any]:
    return run_step(
        "train model",
        {"dataset": load["dataset"], "labels": load["labels"], "rate": rate, "form": form},
        timeout=900,
    )


@task(name="notify", task_run_name="notify")
def notify() -> Values | State[Any]:
    return run_step("notify", {})


@flow(
    name="training",
    description="Trains a classifier.",
    timeout_seconds=3600,
    validate_parameters=False,
    on_running=[on_start],
    on_completion=[on_end],
    on_failure=[on_end],
    on_cancellation=[on_end],
    on_crashed=[on_end],
)
def training(source: str, rows: int = 100, rate: float | None = None, form: dict[str, Any] = ...) -> State[Any]:
    if form is ...:
        form = {"$ref": "#/x"}
    with run_steps(rows=rows, source=source, rate=rate, form=form):
        load_future = load.submit(rows, source)
        train_model_future = train_model.submit(load_future, rate, form)
        notify_future = notify.submit(wait_for=[train_model_future])
        return finish_run(
            {"load": load_future, "train model": train_model_future, "notify": notify_future},
            {"model": (train_model_future, "model")},
            "training-outputs",
        )


if __name__ == "__main__":
    training(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
