"""``flowyml compile``, ``bundle`` and ``graph``: the files of a pipeline, without running it."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from flowyml.cli.errors import UsageError
from flowyml.cli.options import AsJson, File, Option
from flowyml.cli.output import Output, note
from flowyml.cli.source import load
from flowyml.core.files import refuse_others_link, write_whole
from flowyml.core.removal import remove
from flowyml.core.schedule import Schedule
from flowyml.plan.marks import mark_of, marked, objection

if TYPE_CHECKING:
    from flowyml.orchestrators.base import RunnablePipeline
    from flowyml.plan.model import Plan

__all__ = ["bundle", "compile_", "graph"]

_SUFFIXES: Mapping[str, str] = {"terminal": ".txt", "mermaid": ".mmd", "svg": ".svg"}

OutputPath = Annotated[
    Path | None,
    Option(("--output", "-o"), "A file, or a folder (DIR/).", metavar="PATH"),
]
Force = Annotated[bool, Option(("--force",), "Replace the file even if it was edited after FlowyML wrote it.")]


def compile_(
    file: File,
    to: Annotated[
        str,
        Option(
            ("--to",),
            "An engine, a target of flowyml.toml with its settings, or `plan`: FlowyML's own plan.",
            metavar="ENGINE",
        ),
    ],
    output: OutputPath = None,
    check: Annotated[
        bool, Option(("--check",), "Write nothing: show how the files at -o differ, and exit with 1 if they do.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Write the files that an engine would get.

    Needs neither the engine nor its client library. Without -o the main file goes to standard output. A schedule that
    the pipeline declares stands in Airflow's DAG file; on other engines `flowyml deploy` sets it.
    """
    with Output(as_json) as out:
        if check and output is None:
            raise UsageError("--check compares files: name them with -o.")
        pipeline = load(file)
        files = _compiled(pipeline, to)
        if pipeline.compile().schedule and to != "plan" and not any(map(_schedule_in, files.values())):
            note("the files of this engine hold no schedule: `flowyml deploy` sets the one that the pipeline declares")
        if check and output is not None:
            return _print_changed(out, to, _paths(files, output))
        if output is None:
            main = next(iter(files.values()))
            if as_json:
                out.document({"engine": to, "files": [], "text": main.decode()})
            else:
                out.raw(main)
                for name, place in _copies(files).items():
                    note(f"the engine looks for {name} at {place}: write it too, with -o, and copy it there")
            return 0
        places = _paths(files, output)
        written = [str(path) for path in _write(places, force)]
        copies = {str(path): url for path in places if (url := _copies(files).get(path.name))}
        out.answer({"engine": to, "files": written, **({"copy": copies} if copies else {})}, *written)
        for path, url in copies.items() if not as_json else ():
            note(f"copy {path} to {url} before the engine gets {written[0]}: compile sends nothing itself")
        return 0


def bundle(
    file: File,
    output: Annotated[Path, Option(("--output", "-o"), "The folder to write to.", metavar="DIR")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Put a pipeline and its code into one file that a bare Python runs.

    python NAME-DIGEST.pyz step STEP runs one step of it.
    """
    with Output(as_json) as out:
        bundled = load(file).bundle()
        _check_places({output / bundled.filename: bundled.data}, force=False)
        try:
            path = bundled.write(output)
        except OSError as error:
            raise UsageError(
                f"The bundle cannot be written: {error}. Is {output} a folder that -o can write to?"
            ) from error
        facts = {"pipeline": bundled.plan.name, "path": str(path), "digest": bundled.digest, "size": len(bundled.data)}
        out.answer(facts, str(path))


def graph(
    file: File,
    form: Annotated[Literal["terminal", "mermaid", "svg"], Option(("--format", "-f"), "What to draw.")] = "terminal",
    expand: Annotated[bool, Option(("--expand",), "Expand the pipelines that it calls.")] = False,
    output: OutputPath = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw the steps of a pipeline, or list them as JSON.

    A pipeline that it calls is one box, unless --expand opens it; JSON has all steps, and the groups around them.
    """
    with Output(as_json) as out:
        plan = load(file).compile()
        if output is not None:
            data = marked(_drawn(plan, form, expand, out), f"graph{_SUFFIXES[form]}")
            _check_places({output: data}, force)
            _write_file(output, data)
        if output is None and not as_json:
            out.raw(_drawn(plan, form, expand, out))
        else:
            where = {} if output is None else {"path": str(output)}
            out.answer({"pipeline": plan.name, **_listed(plan), **where}, *where.values())


def _listed(plan: Plan) -> dict[str, Any]:
    """Return steps and groups as JSON."""
    from flowyml.graph.text import title_of

    steps = [
        {
            "name": step.name,
            "after": plan.structure.upstream(step),
            "outputs": step.outputs,
            "group": step.group or None,
            "execution_group": step.execution_group or None,
        }
        for step in plan
    ]
    groups = [
        {"name": group.name, "kind": group.KIND, "title": title_of(group), "group": group.parent or None}
        for group in plan.groups
    ]
    return {"steps": steps, "groups": groups}


def _drawn(plan: Plan, form: str, expand: bool, out: Output) -> bytes:
    from flowyml.graph import mermaid, svg, terminal

    if form == "terminal":
        return terminal(plan, columns=out.columns or 200, expand=expand).encode()
    return (mermaid if form == "mermaid" else svg)(plan, expand=expand).encode()


def _compiled(pipeline: RunnablePipeline, to: str) -> Mapping[str, bytes]:
    if to == "plan":
        return {"plan.json": pipeline.compile().canonical + b"\n"}
    from flowyml.orchestrators.registry import load as load_engine
    from flowyml.orchestrators.targets import construct, target

    chosen = target(to)
    orchestrator = construct(load_engine(chosen.engine), chosen, {})
    return orchestrator.compile_pipeline(pipeline)


def _copies(files: Mapping[str, bytes]) -> Mapping[str, str]:
    """Return the files that belong into a store, by name, with their URLs there: the mark of the main file has them.

    Compiling neither reads nor writes a store: it works without network and credentials, for a file to be reviewed too.
    """
    mark = mark_of(next(iter(files.values())))
    copies: Mapping[str, str] = mark.facts.get("copy", {}) if mark else {}
    return copies


def _paths(files: Mapping[str, bytes], output: Path) -> dict[Path, bytes]:
    """Return the main file under the requested name and the others beside it, or all in a folder."""
    main, *_ = files
    is_folder = output.is_dir() or not output.suffix
    folder, first = (output, output / main) if is_folder else (output.parent, output)
    return {(first if name == main else folder / name): data for name, data in files.items()}


def _print_changed(out: Output, to: str, places: Mapping[Path, bytes]) -> int:
    """Print how the files there differ from these, and return the exit code. Line ends do not count: git changes them.

    Files that are not text are only named.
    """
    from flowyml.plan.differences import difference

    places = {**places, **dict.fromkeys(_left_over(places), b"")}
    there = {path: _text_of(path.read_bytes()) if path.is_file() else b"" for path in places}
    changed = [path for path, data in places.items() if there[path] != _text_of(data)]
    if out.as_json:
        names = {"files": [str(path) for path in places], "changed": [str(path) for path in changed]}
        out.document({"engine": to, **names})
        return 1 if changed else 0
    for path in changed:
        with suppress(UnicodeDecodeError):
            old, new = there[path].decode(), places[path].decode()
            out.text(difference(path.as_posix(), old, new).rstrip("\n"))
        note(f"{path} {'is not what its source gives' if there[path] else 'is missing'}")
    return 1 if changed else 0


def _listed_files(places: Mapping[Path, bytes]) -> set[Path]:
    """Return the files that the main file there lists in its mark: FlowyML wrote them, though they have no mark.

    Only files in the folders to which this compilation writes its own count.
    """
    main, *others = places
    mark = mark_of(main.read_bytes()) if main.is_file() else None
    listed = mark.facts.get("files", ()) if mark and mark.is_untouched else ()
    folders = {path.relative_to(main.parent).parts[:2] for path in others}
    parts = [PurePosixPath(name).parts for name in listed]
    return {main.parent.joinpath(*segments) for segments in parts if segments[:2] in folders and ".." not in segments}


def _left_over(places: Mapping[Path, bytes]) -> set[Path]:
    """Return the files of the version there that this one lacks."""
    return {path for path in _listed_files(places).difference(places) if path.is_file()}


def _text_of(data: bytes) -> bytes:
    """Return a text with the line ends that FlowyML writes; a bundle as it is."""
    return data if b"\0" in data else data.replace(b"\r\n", b"\n")


def _write(places: dict[Path, bytes], force: bool) -> list[Path]:
    """Write files, the main one last: then an engine that watches the folder finds the others."""
    listed, left_over = _listed_files(places), _left_over(places)
    _check_places(places, force, listed)
    for path, data in reversed(places.items()):
        _write_file(path, data)
    main = next(iter(places))
    for path in left_over:
        remove(main.parent, *path.relative_to(main.parent).parts)
    return list(places)


def _check_places(places: Mapping[Path, bytes], force: bool, listed: Collection[Path] = ()) -> None:
    """Refuse to overwrite files that people wrote, unless the main file lists them, and a DAG file's schedule."""
    there = {path: path.read_bytes() for path in places if path.is_file()}
    modules = [getattr(module, "__file__", None) for module in [*sys.modules.values()]] if there else []
    loaded = {os.path.realpath(file) for file in filter(None, modules)}
    for path, old in there.items():
        if os.path.realpath(path) in loaded:
            raise UsageError(
                f"{path} is source code of this pipeline, and would be overwritten. Name another file or folder."
            )
        if old == places[path]:
            continue
        if path not in listed and (reason := objection(old, places[path], force=force)):
            raise UsageError(f"{path} {reason}")
        if not force and (schedule := _schedule_in(old)) and not _schedule_in(places[path]):
            raise UsageError(
                f"{path} has the schedule `{schedule}`, and the new file has none: no run would start any more. "
                f"Declare it, as Pipeline(…, schedule=Schedule.of(…)), or use `flowyml deploy`, which keeps it; "
                f"--force writes the file without it."
            )


def _schedule_in(data: bytes) -> Schedule | None:
    """Return the schedule of a file that FlowyML wrote: that of an Airflow DAG stands in its file."""
    mark = mark_of(data)
    plain = mark.facts.get("schedule") if mark else None
    return Schedule.from_dict(plain) if plain else None


def _write_file(path: Path, data: bytes) -> None:
    """Write a file, all or nothing, so that no scheduler ever reads half a file."""
    try:
        refuse_others_link(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
