"""The report over all files: totals, Markdown, HTML, JSON. Texts of DAG files are escaped everywhere."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flowyml.core.durations import counted
from flowyml.core.markdown import code, escaped, table
from flowyml.core.plain_text import safe_text
from flowyml.migration.airflow.writer.notes import MARK, Beside, DagResult, FileResult, Kind, Note, Verdict
from flowyml.plan.names import slug

_ORDER = (Verdict.HAND, Verdict.AIRFLOW, Verdict.ANY)
_SEVERITY = (Kind.REFUSED, Kind.OPAQUE, Kind.CHANGED, Kind.KEPT)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; color: #1d2b26; }
h1, h2, p, td { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem; border-bottom: 1px solid #d5ded9; }
td { min-width: 8rem; } td.kept, td.changed, td.opaque, td.refused { min-width: 0; overflow-wrap: normal; }
.sides { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; }
pre { background: #f4f7f5; padding: 1rem; overflow-x: auto; font-size: 13px; line-height: 1.4; }
.kept { color: #2a6b4f; } .changed { color: #8a6100; } .opaque { color: #2f5c8f; } .refused { color: #a8322a; }
@media (max-width: 60rem) { .sides { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 40rem) {
  th { display: none; } table, tbody, tr, td { display: block; }
  tr { border-bottom: 1px solid #d5ded9; padding: .4rem 0; }
  td { border: 0; padding: .1rem 0; } td:empty { display: none; }
  td[data-head]::before { content: attr(data-head) ": "; color: #5b6b64; }
}
"""
# No script runs on a page, and nothing is loaded, whatever the page contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def totals(results: Sequence[FileResult]) -> str:
    """Return a sentence over all DAGs.

    >>> totals([])
    'No DAG was found.'
    """
    dags = [dag for file in results for dag in file.dags]
    if not dags:
        return "No DAG was found."
    count = Counter(dag.verdict for dag in dags)
    parts = [
        f"{count[Verdict.ANY]} of {counted(len(dags), 'DAG')} run{'s' * (count[Verdict.ANY] == 1)} on any engine",
        f"{count[Verdict.AIRFLOW]} on Airflow only",
        f"{count[Verdict.HAND]} need{'s' if count[Verdict.HAND] == 1 else ''} a hand",
    ]
    return f"{', '.join(parts)}."


def ordered(dag: DagResult) -> list[Note]:
    """Return the notes of a DAG, those with work to do first."""
    return sorted(dag.notes, key=lambda note: (_SEVERITY.index(note.kind), note.place.path, note.place.line))


def document(results: Sequence[FileResult]) -> dict[str, Any]:
    """Return the report for machines."""
    dags = [dag for file in results for dag in file.dags]
    count = Counter(dag.verdict for dag in dags)
    return {
        "totals": {"dags": len(dags), "any_engine": count[Verdict.ANY], "airflow_only": count[Verdict.AIRFLOW],
                   "needs_a_hand": count[Verdict.HAND]},
        "files": [
            {"path": file.path, "module": file.module or None, "reason": file.reason or None,
             "dags": [_dag_document(dag) for dag in file.dags],
             "modules": [
                 {"name": each.name, "path": each.place.path, "line": each.place.line, "source": each.source or None,
                  "copy": each.copy or None, "reason": each.reason or None, "to_do": each.to_do or None}
                 for each in file.beside
             ]}
            for file in results
        ],
    }  # fmt: skip


def _dag_document(dag: DagResult) -> Mapping[str, Any]:
    notes = [
        {"kind": note.kind.value, "construct": note.construct, "path": note.place.path, "line": note.place.line,
         "reason": note.reason or None, "to_do": note.to_do or None}
        for note in ordered(dag)
    ]  # fmt: skip
    return {"dag_id": dag.dag_id, "pipeline": dag.pipeline or None, "verdict": dag.verdict.value, "notes": notes}


def markdown(results: Sequence[FileResult]) -> str:
    """Return the report for people, and for a pull request."""
    lines = ["# Import of Airflow DAGs", "", f"{MARK}. {totals(results)}", ""]
    for verdict in _ORDER:
        found = [(file, dag) for file in results for dag in file.dags if dag.verdict is verdict]
        if found:
            lines += [f"## {verdict.value.capitalize()} ({len(found)})", ""]
        for file, dag in found:
            to = code(file.module) if dag.pipeline else "no pipeline"
            lines += [f"### {_shown(dag.dag_id)}", "", f"{code(file.path)} → {to}", ""]
            lines += [table(_HEADS, map(_row, ordered(dag))), ""]
    if rows := [_beside_row(each) for each in _beside(results)]:
        lines += [f"## Modules that pipelines import ({len(rows)})", "", table(_HEADS_BESIDE, rows), ""]
    if nothing := [file for file in results if not file.dags and file.reason]:
        lines += ["## Files without a DAG", "", *(f"- {code(f.path)}: {_shown(f.reason)}" for f in nothing), ""]
    return "\n".join(lines)


_HEADS = ("", "Construct", "Where", "Why", "What to do")
_HEADS_BESIDE = ("Module", "Imported at", "From", "Copy", "Why", "What to do")
_shown = partial(escaped, in_file=True)


def _row(note: Note) -> Sequence[str]:
    where = code(note.place, in_cell=True)
    return note.kind, _shown(note.construct), where, _shown(note.reason), _shown(note.to_do)


def _beside(results: Sequence[FileResult]) -> list[Beside]:
    """Return the modules beside those that were written, without duplicates: missing ones first."""
    found: dict[tuple[str, str], Beside] = {}
    for each in (each for file in results for each in file.beside):
        found.setdefault((each.copy, each.name if each.copy else f"{each.name} {each.place}"), each)
    return sorted(found.values(), key=lambda each: (bool(each.copy), each.name))


def _beside_row(each: Beside) -> Sequence[str]:
    place, source, copy = (
        code(text, in_cell=True) if text else "" for text in (str(each.place), each.source, each.copy)
    )
    return _shown(each.name), place, source, copy, _shown(each.reason), _shown(each.to_do)


class _Files(Mapping[str, str]):
    """Files by name. Each is created on demand, so that thousands of pages are never in memory at once."""

    def __init__(self, makers: Mapping[str, Callable[[], str]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> str:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def files_of_report(results: Sequence[FileResult]) -> Mapping[str, str]:
    """Return all files of the report, by name.

    The pages are one for all, one for each DAG, and one for each file that shows both sides.
    """
    rows: list[Sequence[str]] = []
    makers: dict[str, Callable[[], str]] = {
        "report.md": partial(markdown, results),
        "report.json": lambda: (
            json.dumps({"about": f"{MARK}.", **document(results)}, indent=2, ensure_ascii=False) + "\n"
        ),
        "index.html": partial(_index, results, rows),
    }
    number = 0
    for of_file, file in enumerate(results, 1):
        sides = f"file-{of_file:04d}.html"
        if file.dags:
            makers[sides] = partial(_sides, file)
        for dag in file.dags:
            number += 1
            name = f"{number:04d}-{slug(dag.dag_id, max_length=60)}.html"
            makers[name] = partial(_page_of, dag, sides)
            count = Counter(note.kind for note in dag.notes)
            numbers = [str(count[kind] or "") for kind in _SEVERITY]
            rows.append((_link(name, dag.dag_id), _safe(dag.verdict), *numbers, _link(sides, file.path)))
    return _Files(makers)


def _index(results: Sequence[FileResult], rows: Sequence[Sequence[str]]) -> str:
    body = f"<p>{_safe(totals(results))}</p>{_table(('DAG', 'Runs on', *_SEVERITY, 'File'), rows)}"
    columns = ("name", "place", "source", "copy", "reason", "to_do")
    beside = [[_safe(str(getattr(each, column))) for column in columns] for each in _beside(results)]
    if beside:
        body += f"<h2>Modules that pipelines import</h2>{_table(_HEADS_BESIDE, beside)}"
    return _page("Import of Airflow DAGs", body)


def _page_of(dag: DagResult, sides: str) -> str:
    rows = (
        (note.kind, _safe(note.construct), _place(note, dag, sides), _safe(note.reason), _safe(note.to_do))
        for note in ordered(dag)
    )
    links = f"{_link('index.html', 'All DAGs')} · {_link(f'{sides}#line-{dag.place.line}', 'Both sides')}"
    return _page(dag.dag_id, f"<p>{links} · {_safe(dag.verdict)}</p>{_table(_HEADS, rows)}")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; those of a kind of notes have its colour.

    On a narrow page each cell repeats its head, but for the column that names the row.
    """
    first_head = next(filter(None, heads))

    def cell(head: str, shown: str) -> str:
        kind = f" class={head or shown}" if (head or shown) in _SEVERITY else ""
        return f"<td{kind}" + (f' data-head="{head}"' if head not in ("", first_head) else "") + f">{shown}</td>"

    titles = "".join(f"<th>{head}</th>" for head in heads)
    shown = "".join(f"<tr>{''.join(map(cell, heads, row))}</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{shown}</table>"


def _link(to: str, text: str) -> str:
    return f'<a href="{to}">{_safe(text)}</a>'


def _place(note: Note, dag: DagResult, sides: str) -> str:
    if note.place.path != dag.place.path:
        return _safe(str(note.place))
    return _link(f"{sides}#line-{note.place.line}", str(note.place))


def _sides(file: FileResult) -> str:
    """Return a DAG file beside its module; each line has an anchor for links."""
    lines = file.original.replace("\r\n", "\n").split("\n")
    original = "\n".join(f'<span id="line-{number}">{_safe(line)}</span>' for number, line in enumerate(lines, 1))
    return _page(
        file.path,
        f'<p><a href="index.html">All DAGs</a></p>'
        f"<div class=sides><div><h2>DAG file: {_safe(file.path)}</h2><pre>{original}</pre></div>"
        f"<div><h2>Pipelines: {_safe(file.module)}</h2><pre>{_safe(file.written)}</pre></div></div>",
    )


def _page(title: str, body: str) -> str:
    about = re.sub("`(.*?)`", r"<code>\1</code>", _safe(MARK))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="generator" content="{_safe(MARK)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head><body><h1>{_safe(title)}</h1>{body}"
        f"<footer>{about}</footer></body></html>\n"
    )


def _safe(text: str) -> str:
    return html.escape(safe_text(text))
