"""Keep an Airflow DAG that exists already, and put new steps before and after it.

    export FLOWYML_AIRFLOW_URL=https://airflow.example FLOWYML_AIRFLOW_TOKEN=…
    python examples/around_a_dag.py
    flowyml run examples/around_a_dag.py --on prefect     # the same around the same DAG, from another engine

`external_dag` triggers the DAG `load_warehouse`, waits for its end and fails with it. A step that died and is tried
again attaches to the run that is under way, rather than starting a second one.
"""

from __future__ import annotations

from typing import Any

from flowyml import Pipeline, step
from flowyml_airflow import external_dag


@step(outputs=["tables"])
def choose() -> list[str]:
    """What is to be loaded; the DAG finds it in its `conf`."""
    return ["orders", "customers"]


load_warehouse = external_dag("load_warehouse", inputs=["tables"], timeout=3600, retry=1, poll_interval=2)


@step(inputs=["load_warehouse", "tables"], outputs=["message"])
def announce(load_warehouse: dict[str, Any], tables: list[str]) -> str:
    """What the DAG's run was, and where to look at it."""
    return f"{', '.join(tables)}: {load_warehouse['state']}, see {load_warehouse['url']}"


around_a_dag = (
    Pipeline("around-a-dag", outputs=["message"]).add_step(choose).add_step(load_warehouse).add_step(announce)
)

if __name__ == "__main__":
    result = around_a_dag.run()
    print(result["message"] if result.success else result.error)
