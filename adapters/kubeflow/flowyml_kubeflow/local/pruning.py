"""The folders of runs on KFP's local runner that ended long ago."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flowyml.core.locks import held
from flowyml.core.pruning import Bounds, Prunable, unfinished
from flowyml.core.removal import files_below, has_others, names_in, remove, remove_leftovers
from flowyml_kubeflow.local.folder import RunFolder

__all__ = ["prunable"]

_IN_PROGRESS = "it is in progress"


def prunable(folder: Path, bounds: Bounds) -> Iterator[Prunable]:
    """Yield each run's folder, and folders that a process was creating when it died."""
    remove_leftovers(folder)
    yield from unfinished(folder, bounds)
    for name in names_in(folder):
        run = RunFolder(folder / name)
        if not run.path.is_dir() or run.path.is_symlink() or run.request().get("job_id") != name:
            continue
        used = float(run.result().get("time") or bounds.now)
        kept = _IN_PROGRESS if _is_in_progress(run) else bounds.keeps(used)
        if not kept and has_others(folder, name):
            kept = "it contains files of another user"
        yield Prunable(
            kind="run", name=run.request()["run_id"], bytes=sum(each.size for each in files_below(folder, name)),
            used=used, kept=kept, remove=partial(_remove, folder, name, bounds),
        )  # fmt: skip


def _is_in_progress(run: RunFolder) -> bool:
    return not run.result() or run.is_supervised()


def _remove(folder: Path, name: str, bounds: Bounds) -> int:
    """Remove a folder.

    While the lock is held no process begins to run it; a run to be repeated has no result any more.
    """
    run = RunFolder(folder / name)
    try:
        with held(run.lock) as is_free:
            result = run.result()
            return 0 if not is_free or not result or bounds.keeps(result["time"]) else remove(folder, name)
    except FileNotFoundError:
        return 0
