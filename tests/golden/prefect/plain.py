@task(name="load", task_run_name="load")
def load(rows: int) -> Values | State[Any]:
    return run_step("load", {"rows": rows})


@task(name="notify", task_run_name="notify")
def notify() -> Values | State[Any]:
    return run_step("notify", {})


@flow(name="plain", validate_parameters=False)
def plain(rows: int = 100) -> State[Any]:
    with run_steps(rows=rows):
        load_future = load.submit(rows)
        notify_future = notify.submit(wait_for=[load_future])
        return finish_run(
            {"load": load_future, "notify": notify_future},
            {"dataset": (load_future, "dataset")},
            "plain-outputs",
        )


if __name__ == "__main__":
    plain(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
