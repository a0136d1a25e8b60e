"""Steps with secrets. Airflow's interpreter imports this module, and has no pytest."""

from __future__ import annotations

import base64
import os
import warnings

from flowyml import get_logger, step


@step(secrets={"password": "flowyml_warehouse/password", "key": "renamed", "TOKEN": "flowyml/token"})
def reads(password: str = "", key: str = "") -> list[int]:
    print(f"signing in with {password}, {key}")
    coded = base64.b64encode(password.encode()).decode()
    get_logger().warning("logged: %s and %s", password, coded)
    warnings.warn(f"warned: {password} and {coded}", stacklevel=1)
    return [len(password), len(key), len(os.environ["TOKEN"])]


@step(secrets={"password": "flowyml_warehouse/password"})
def fails(password: str = "") -> None:
    raise ValueError(f"cannot sign in: app:{password}")


@step(secrets={"password": "flowyml_nowhere/password"})
def lacks(password: str = "") -> None:
    pass
