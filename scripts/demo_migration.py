"""From a folder of DAGs on a real Airflow to Prefect, and back, in ten minutes: `make demo-migration`.

Airflow 3.3 and Prefect are started for it on 127.0.0.1, with a folder of their own, and ended after it. Each step is a
command that you can type yourself. Airflow has an environment of its own, which takes a minute or two to install the
first time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.engines.airflow import Airflow, airflow3, wait_until  # noqa: E402  # found by the line above

DAG = "order_totals"


@dataclass(frozen=True)
class Desk:
    """Where the commands run: a folder with the DAG files, and the environment that names both engines."""

    folder: Path
    environment: dict[str, str]

    def flowyml(self, *words: str, quiet: bool = False) -> str:
        """Run a command, and show it with what it says. Ends the demo where it fails."""
        if not quiet:
            print(f"\n$ flowyml {' '.join(words)}", flush=True)
        command = [sys.executable, "-m", "flowyml", *words]
        out = subprocess.PIPE if quiet else None
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=out, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"`flowyml {' '.join(words)}` gave {done.returncode}.")
        return done.stdout or ""

    def ended(self, on: str) -> int:
        """How many runs of the DAG or pipeline have ended well on an engine."""
        runs = self.flowyml("runs", "--on", on, "--pipeline", DAG, "--limit", "1000", "--json", quiet=True)
        return sum(run["status"] == "COMPLETED" for run in json.loads(runs))

    def wait_for_runs(self, on: str, more: int) -> None:
        before = self.ended(on)
        tell(f"Waiting for {more} more of its runs on {on}: it has one each minute.")
        wait_until(lambda: self.ended(on) >= before + more, 120 + 90 * more, every=2)


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flowyml-migration-") as name, desk(Path(name)) as (here, airflow):
        for step in (plan, move, run, go_beside, cut_over, go_back):
            step(here)
        tell(f"That took {(time.monotonic() - began) / 60:.0f} minutes.")
        if sys.stdin.isatty():
            print(f"The files are in {here.folder}.")
            print(f"Airflow is at {airflow.url}: user {airflow.username}, password {airflow.password}")
            here.flowyml("backends", "sign-in", "prefect")
            input("Look around; Enter ends both engines and removes the folder. ")
    return 0


@contextmanager
def desk(folder: Path) -> Iterator[tuple[Desk, Airflow]]:
    """An Airflow that runs the DAGs, one of them by its schedule already; Prefect starts when it is first used."""
    tell("Starting Airflow 3.3 with a folder of DAGs; its first start takes a while.")
    with airflow3(folder / "engines") as airflow:
        here = Desk(folder, {**os.environ, **settings(airflow, folder)})
        here.environment.pop("PREFECT_API_URL", None)
        install(folder, airflow)
        wait_until(lambda: here.ended("airflow"), 120, every=1)
        try:
            yield here, airflow
        finally:
            here.flowyml("backends", "stop", "prefect")


def settings(airflow: Airflow, folder: Path) -> dict[str, str]:
    """What names the engines: Airflow by its URL and user, Prefect as the one that FlowyML starts itself."""
    who = {"URL": airflow.url, "USERNAME": airflow.username, "PASSWORD": airflow.password}
    named = {f"FLOWYML_AIRFLOW_{name}": value for name, value in who.items()}
    return {**named, "FLOWYML_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "prefect")}


def install(folder: Path, airflow: Airflow) -> None:
    """The DAG files, in the folder that Airflow reads and beside the commands."""
    shutil.copytree(ROOT / "examples/airflow_dags", folder / "dags")
    shutil.copytree(ROOT / "examples/airflow_dags", airflow.dags_folder, dirs_exist_ok=True)
    wait_until(lambda: DAG in airflow.command("dags", "list", "-o", "plain").stdout, 120)
    airflow.command("dags", "unpause", DAG)


def plan(here: Desk) -> None:
    tell("1. The plan. What runs on this Airflow, and what would become of each DAG? The files are read, not run.")
    here.flowyml("airflow", "adopt", "--dags", "dags")


def move(here: Desk) -> None:
    tell("2. The import. Each DAG file becomes a module of pipelines, with a report on every task.")
    here.flowyml("import", "airflow", "dags", "-o", "pipelines", "--report", "report")
    print(f"\nThis is pipelines/{DAG}.py:\n\n{(here.folder / f'pipelines/{DAG}.py').read_text()}")
    print("The report is report/index.html, with a page for each DAG. What it says of supplier_mail:")
    files = json.loads((here.folder / "report/report.json").read_text())["files"]
    dags = {dag["dag_id"]: dag for file in files for dag in file["dags"]}
    for note in dags["supplier_mail"]["notes"]:
        said = ". ".join(words for words in (note["reason"], note["to_do"]) if words)
        print(f"  {note['kind']:8}{note['construct']}{said and ': ' + said}")


def run(here: Desk) -> None:
    tell("3. An imported pipeline runs here, and on Prefect, which is started when it is first needed.")
    here.flowyml("run", f"pipelines/{DAG}.py")
    here.flowyml("run", f"pipelines/{DAG}.py", "--on", "prefect")


def go_beside(here: Desk) -> None:
    tell("4. Side by side. Prefect runs the pipeline by the DAG's schedule, the DAG goes on, and both are compared.")
    here.flowyml("airflow", "cutover", DAG, "--shadow", "--to", "prefect", "--pipeline", f"pipelines/{DAG}.py")
    here.wait_for_runs("prefect", 2)
    here.flowyml("airflow", "compare", DAG)


def cut_over(here: Desk) -> None:
    tell("5. The cutover. The DAG is paused, and the pipeline goes on alone, so that each minute runs once.")
    here.flowyml("airflow", "cutover", DAG)
    here.wait_for_runs("prefect", 1)
    here.flowyml("runs", "--on", "prefect", "--pipeline", DAG)


def go_back(here: Desk) -> None:
    tell("6. And back. Airflow gets a mark for the minutes that ran on Prefect, and goes on with the next.")
    here.flowyml("airflow", "cutover", DAG, "--back")
    here.wait_for_runs("airflow", 1)
    here.flowyml("runs", "--on", "airflow", "--pipeline", DAG)


def tell(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
