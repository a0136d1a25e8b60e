"""Sample pipelines whose steps name secrets, and try to reveal them. Their steps are pickled by value."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flowyml import Pipeline, for_each, get_logger, pipeline, step
from flowyml.core.hooks import PipelineHook

__all__ = ["MISSING", "NAME", "VALUE", "gives_secret", "lacks_secret", "loops_secret", "raises_secret", "shows_secret"]

NAME, MISSING = "flowyml-conformance/password", "flowyml-nowhere/password"
VALUE = "conformance: k3y/with+signs&more"


def shows_secret(folder: str) -> Pipeline:
    """A step that prints its secret in every notation, and one beside it that names none."""

    @step(secrets={"password": NAME, "CONFORMANCE_PASSWORD": NAME}, outputs=["lengths"])
    def shows(password: str = "") -> list[int]:
        coded = base64.b64encode(f"user:{password}".encode()).decode()
        print(f"plain: {password}.")
        print(f"base64: {coded}")
        print(f"url: https://app:{quote(password, safe='')}@host")
        print(f"broken: {password[:14]}")
        print(f"{password[14:]} :broken")
        print(f"on stderr: {password}", file=sys.stderr)
        get_logger().warning("logged: %s", password)
        code = "import os; print('by a child:', os.environ['CONFORMANCE_PASSWORD'])"
        subprocess.run([sys.executable, "-c", code], check=True)
        return [len(password), len(os.environ["CONFORMANCE_PASSWORD"])]

    @step(outputs=["others"])
    def has_none() -> list[str]:
        return [name for name in os.environ if name == "CONFORMANCE_PASSWORD"]

    return Pipeline("conformance secret shows").add_step(shows).add_step(has_none)


def raises_secret(folder: str) -> Pipeline:
    """A step that raises its secret, with hooks that record their arguments."""

    @step(secrets={"password": NAME})
    def raises(number: int, password: str = "") -> None:
        raise ValueError(f"cannot sign in as app:{password}")

    class Writes(PipelineHook):
        def on_step_start(self, step_name: str, inputs: Any) -> None:
            self.write(f"{step_name} {dict(inputs)}")

        def on_error(self, step_name: str, error: BaseException) -> None:
            self.write(f"{step_name} {error}")

        def write(self, text: str) -> None:
            with (Path(folder) / "journal").open("a") as file:
                file.write(f"{text}\n")

    return Pipeline("conformance secret raises", context={"number": 7}, hooks=[Writes()]).add_step(raises)


def gives_secret(folder: str) -> Pipeline:
    @step(secrets={"password": NAME}, outputs=["url"])
    def gives(password: str = "") -> dict[str, list[str]]:
        return {"urls": [f"postgresql://app:{password}@host"]}

    return Pipeline("conformance secret gives").add_step(gives)


def lacks_secret(folder: str) -> Pipeline:
    """A step whose secret does not exist, and one beside it that names none."""

    @step(secrets={"password": MISSING})
    def lacks(password: str = "") -> None:
        pass

    @step(outputs=["beside"])
    def beside() -> int:
        return 1

    return Pipeline("conformance secret lacks").add_step(lacks).add_step(beside)


def loops_secret(folder: str) -> Pipeline:
    """Items of a loop whose step names a secret."""

    @step(secrets={"password": NAME})
    def of_item(item: int, password: str = "") -> int:
        print(f"item {item}: {password}")
        return item * len(password)

    @pipeline(name="conformance secret loops")
    def loops() -> Any:
        with for_each([1, 2]) as item:
            lengths = of_item(item)
        return {"lengths": lengths}

    return loops
