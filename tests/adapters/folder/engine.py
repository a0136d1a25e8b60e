"""An engine in a folder, as small as one can be. It knows nothing of FlowyML.

``python engine.py FOLDER`` runs each job that appears in the folder as ``RUN/job.json``, where RUN begins with no dot:
its tasks one after another, each a command. It hands the results of tasks to those that need them, and writes what
happened into ``state.json`` and ``log.jsonl`` beside the job. A file ``cancel`` there stops the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

GRACE_SECONDS = 5


class Run:
    """One run, from its first task to its last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        self.tasks: dict[str, dict[str, Any]] = {task["name"]: {"state": "waiting"} for task in self.job["tasks"]}
        self.state = {"state": "running", "started": time.time(), "tasks": self.tasks}

    def execute(self) -> None:
        self.save()
        for task in self.job["tasks"]:
            needed = [
                self.tasks[name]["state"] for name in [*task["after"], *(name for name, _ in task["needs"].values())]
            ]
            if self.is_cancelled or any(state != "done" for state in needed):
                self.tasks[task["name"]]["state"] = "skipped"
            else:
                self.run(task, self.tasks[task["name"]])
            self.save()
        states = {task["state"] for task in self.tasks.values()}
        end = "failed" if "failed" in states else "done" if states <= {"done"} else "cancelled"
        self.state |= {"state": "cancelled" if self.is_cancelled else end, "ended": time.time()}
        self.save()

    def run(self, task: dict[str, Any], record: dict[str, Any]) -> None:
        record |= {"state": "running", "started": time.time()}
        self.save()
        number = self.job["tasks"].index(task)
        inputs, result = self.folder / f"{number}.inputs.json", self.folder / f"{number}.result.json"
        given = {
            name: self.tasks[source]["result"]["outputs"][output] for name, (source, output) in task["needs"].items()
        }
        inputs.write_text(json.dumps(given))
        places = {"{inputs}": inputs, "{result}": result, "{run}": self.folder}
        command = [replaced(word, places) for word in task["command"]]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            reader = threading.Thread(target=self.log, args=(task["name"], process.stdout))
            reader.start()
            while process.poll() is None and not self.is_cancelled:
                time.sleep(0.02)
            self.stop(process)
            reader.join()
        record |= {"result": json.loads(result.read_text()) if result.exists() else {}, "ended": time.time()}
        record["state"] = "cancelled" if self.is_cancelled else "failed" if process.returncode else "done"

    def log(self, task: str, stream: IO[str]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            for line in stream:
                print(json.dumps({"task": task, "time": time.time(), "line": line.rstrip("\n")}), file=file, flush=True)

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ask a task that still runs to end, then kill it, with whatever it started."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    @property
    def is_cancelled(self) -> bool:
        return (self.folder / "cancel").exists()

    def save(self) -> None:
        new = self.folder / "state.new"
        new.write_text(json.dumps(self.state))
        new.replace(self.folder / "state.json")


def replaced(word: str, places: dict[str, Path]) -> str:
    for mark, path in places.items():
        word = word.replace(mark, str(path))
    return word


def serve(folder: Path) -> None:
    """Run what appears in the folder, until this process is ended."""
    seen: set[Path] = set()
    while True:
        (folder / "alive").touch()
        for run in folder.iterdir():
            if run not in seen and not run.name.startswith(".") and (run / "job.json").exists():
                seen.add(run)
                threading.Thread(target=Run(run).execute, daemon=True).start()
        time.sleep(0.05)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
