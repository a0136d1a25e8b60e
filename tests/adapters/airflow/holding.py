"""A pipeline in a module that imports nothing else, since the versions of what it imports are in the cache's key."""

from __future__ import annotations

from pathlib import Path

from flowyml import Pipeline, step


def held(folder: Path, more: int) -> Pipeline:
    """Two steps, of which the first is cached, and waits for a file."""

    @step(outputs=["rows"], cache=True)
    def hold(folder: str) -> list[int]:
        import time
        from pathlib import Path

        (Path(folder) / "begun").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.1)
        return [1, 2]

    @step(outputs=["count"])
    def count(rows: list[int], more: int) -> int:
        return len(rows) + more

    return Pipeline("prune under way", context={"folder": str(folder), "more": more}).add_step(hold).add_step(count)
