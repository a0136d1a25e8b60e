@task(name="train", task_run_name="{turn}", retries=1, retry_delay_seconds=[1], retry_condition_fn=retry_on(None))
def train(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="best", task_run_name="{turn}")
def best(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="publish", task_run_name="{turn}")
def publish(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="hold", task_run_name="{turn}")
def hold(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="tell", task_run_name="{turn}", timeout_seconds=60 + GRACE)
def tell(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="tidy.up", task_run_name="{turn}")
def tidy_up(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@flow(name="search", validate_parameters=False)
def search(rates: list[Any]) -> State[Any]:
    with run_steps(rates=rates):
        # for each rate of rates, 4 at a time, and go on after failures:
        #     train(rate=rate)
        # best(scores=train)
        # if score > 0.9:
        #     publish(rate=best.rate)
        # else:
        #     hold()
        # tell(text=either(publish, hold)) if all_done
        # however all of that ends:
        #     pipeline tidy:
        #         tidy.up()
        return run_all(
            {"train": train, "best": best, "publish": publish, "hold": hold, "tell": tell, "tidy.up": tidy_up},
            {"rates": rates},
            "search-outputs",
        )


if __name__ == "__main__":
    search(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
