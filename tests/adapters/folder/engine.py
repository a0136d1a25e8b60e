"""An engine in a folder, as small as one can be. It knows nothing of FlowyML.

``python engine.py FOLDER`` runs each job that appears in the folder as ``RUN/job.json``, where RUN begins with no dot:
a command, in which ``{run}`` stands for that folder. It writes what happens into ``state.json`` and ``log.jsonl``
beside the job. A file ``cancel`` there asks the command to end, by SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Run:
    """One run, from its beginning to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {"state": "running", "started": time.time()}

    def execute(self) -> None:
        self.save()
        job = json.loads((self.folder / "job.json").read_text())
        command = [word.replace("{run}", str(self.folder)) for word in job["command"]]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            threading.Thread(target=self.watch, args=(process,), daemon=True).start()
            assert process.stdout is not None
            with (self.folder / "log.jsonl").open("a") as file:
                for line in process.stdout:
                    print(json.dumps({"time": time.time(), "line": line.rstrip("\n")}), file=file, flush=True)
        end = "cancelled" if self.is_cancelled else "failed" if process.returncode else "done"
        self.state |= {"state": end, "ended": time.time()}
        self.save()

    def watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if self.is_cancelled:
                os.kill(process.pid, signal.SIGTERM)
                return
            time.sleep(0.02)

    @property
    def is_cancelled(self) -> bool:
        return (self.folder / "cancel").exists()

    def save(self) -> None:
        new = self.folder / "state.new"
        new.write_text(json.dumps(self.state))
        new.replace(self.folder / "state.json")


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
