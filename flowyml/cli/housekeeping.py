"""``flowyml prune``: remove data of past runs that is no longer needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from flowyml.cli.errors import FAILED
from flowyml.cli.options import AsJson, On, Option
from flowyml.cli.output import Output, note, print_error
from flowyml.orchestrators.targets import resolve

__all__ = ["prune"]

_FOR_TIMES = 60
"""The number of terminal columns from which times are shown beside dates."""


def prune(
    older_than: Annotated[
        str, Option(("--older-than",), "Remove what has not been used for this long: 12h, 30d, 8w.", metavar="AGE")
    ] = "30d",
    max_size: Annotated[
        str,
        Option(("--max-size",), "How much to keep of cached results, and of unpacked code.", metavar="SIZE"),
    ] = "10GB",
    dry_run: Annotated[
        bool, Option(("--dry-run",), "Show what would be removed and what stays; remove nothing.")
    ] = False,
    on: On = None,
    as_json: AsJson = False,
) -> int:
    """Remove data of past runs that nothing needs, 30 days after its last use or as --older-than says.

    Data stays if a run in progress, a schedule, a deployment or a run that can be retried needs it. Exits with 1 if
    something could not be removed.
    """
    from flowyml.core.durations import bytes_of, seconds_of, size_text
    from flowyml.core.progress import show_counting
    from flowyml.core.pruning import Bounds, Prunable, Pruned
    from flowyml.core.pruning import prune as remove

    with Output(as_json) as out:
        bounds = Bounds(older_than=seconds_of(older_than), max_bytes=bytes_of(max_size))
        orchestrator = resolve(on)
        with show_counting("looking for unused data") as count:
            prunable: list[Prunable] = []
            for item in orchestrator.prunable(bounds):
                prunable.append(item)
                count(len(prunable))
        going = [item for item in prunable if not item.kept]
        done: list[Pruned] = []
        if not dry_run:
            with show_counting("removing", len(going)) as count:
                for pruned in remove(going, orchestrator.pruning()):
                    done.append(pruned)
                    count(len(done))
        if as_json:
            out.document(_plain(prunable, done, dry_run))
        else:
            _print(out, prunable, done, dry_run)
            size = sum(item.bytes for item in going) if dry_run else sum(outcome.freed for outcome in done)
            note(f"{'would free' if dry_run else 'freed'} {size_text(size)}")
        return FAILED if any(outcome.problem for outcome in done) else 0


def _print(out: Output, prunable: Sequence[Any], done: Sequence[Any], dry_run: bool) -> None:
    from flowyml.core.durations import size_text, zone_text

    listed = (
        [item for item in prunable if not item.kept]
        if dry_run
        else [outcome.item for outcome in done if not outcome.problem]
    )
    sizes = {id(outcome.item): outcome.freed for outcome in done}
    narrow = out.columns is not None and out.columns < _FOR_TIMES
    form = "%Y-%m-%d" if narrow else "%Y-%m-%d %H:%M"
    rows = [
        (item.kind, item.name, f"{item.used_at.astimezone():{form}}" if item.used else "", size_text(size))
        for item in listed
        if (size := sizes.get(id(item), item.bytes)) or dry_run
    ]
    if rows:
        zone = zone_text(item.used_at for item in listed if item.used)
        out.table(
            ("KIND", "NAME", f"LAST USED ({zone})" if zone and not narrow else "LAST USED", "SIZE"), rows, cut="NAME"
        )
    if any(kind == "code" for kind, *_ in rows):
        note("code: shared by all of this user's FlowyML homes; a run that needs it unpacks it again")
    kept = Counter((item.kind, item.kept) for item in prunable if item.kept)
    for (kind, reason), number in sorted(kept.items()):
        note(f"kept: {number} × {kind}: {reason}")
    for outcome in done:
        if outcome.problem:
            print_error(f"{outcome.item.kind} {outcome.item.name}: {outcome.problem}")


def _plain(prunable: Sequence[Any], done: Sequence[Any], dry_run: bool) -> dict[str, Any]:
    results = {id(outcome.item): outcome for outcome in done}
    items = []
    for item in prunable:
        result = results.get(id(item))
        items.append({
            "kind": item.kind, "name": item.name, "size": item.bytes,
            "used_at": item.used_at.isoformat() if item.used else None, "kept": item.kept or None,
            "freed": result.freed if result else 0, "problem": (result.problem or None) if result else None,
        })  # fmt: skip
    return {"dry_run": dry_run, "freed": sum(outcome.freed for outcome in done), "items": items}
