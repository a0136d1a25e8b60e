"""Sample pipelines whose outputs are artifacts for people. Their steps are pickled by value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from flowyml import Pipeline, report, step

__all__ = ["stores_files"]


def stores_files(folder: str) -> Pipeline:
    """Steps that return a table, metrics, a file and a folder, and one that reads both."""

    @step(outputs=["rows", "scores"])
    def look() -> tuple[Annotated[list[dict[str, Any]], "table"], dict[str, float]]:
        report("rows", source="<b>made|up</b>", checked=True)
        return [{"n": number, "note": "<i>*one*</i>"} for number in range(20)], {"auc": 0.5, "f1": 1.0}

    @step(outputs=["text", "tree"])
    def write(rows: Any) -> tuple[Path, Path]:
        import tempfile

        place = Path(tempfile.mkdtemp())
        (place / "Report 1.txt").write_text(f"{len(rows)} rows")
        (place / "model" / "deep").mkdir(parents=True)
        (place / "model" / "deep" / "weights").write_bytes(b"\0\1")
        (place / "model" / "config").write_text("{}")
        return place / "Report 1.txt", place / "model"

    @step(outputs=["found"])
    def read(text: Any, tree: Any) -> list[str]:
        names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))
        return [text.name, text.read_text(), tree.name, *names]

    made = Pipeline("conformance artifacts")
    return made.add_step(look).add_step(write).add_step(read)
