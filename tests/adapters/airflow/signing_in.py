"""Steps with secrets. Airflow's interpreter imports this module, and has no pytest."""

from __future__ import annotations

import os

from flowyml import step


@step(secrets={"password": "flowyml_warehouse/password", "key": "renamed", "TOKEN": "flowyml/token"})
def reads(password: str = "", key: str = "") -> list[int]:
    print(f"signing in with {password}, {key}")
    return [len(password), len(key), len(os.environ["TOKEN"])]


@step(secrets={"password": "flowyml_warehouse/password"})
def fails(password: str = "") -> None:
    raise ValueError(f"cannot sign in: app:{password}")


@step(secrets={"password": "flowyml_nowhere/password"})
def lacks(password: str = "") -> None:
    pass
