"""Requirements that keep FlowyML below 1.0, in files of packages and ``pip install`` lines; scripts of CI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata
from typing import Literal

from flowyml._version import __version__
from flowyml.migration.legacy.checklist import Item, Note, unaccepted
from flowyml.migration.legacy.python import Migrated
from flowyml.migration.legacy.statuses import STATUS_WORDS

#: No requirement and no line of a script is longer; the patterns below would be slow on a longer one.
LONGEST_LINE = 2_000
Style = Literal["requirements", "toml", "shell"]

_CLAUSE = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[\w.*+!-]+"
_PIN = re.compile(
    rf"(?<![\w./@-])(?P<name>flowyml)(?P<extras>\s*\[[\w\s,.-]*\])?(?P<space>\s*)"
    rf"(?P<open>\()?(?P<spec>{_CLAUSE}(?:\s*,\s*{_CLAUSE})*)(?P<close>\))?",
    re.IGNORECASE,
)
_TABLE = re.compile(
    r"""^(?P<before>\s*["']?flowyml["']?\s*=\s*(?:\{[^}\n]*\bversion\s*=\s*)?["'])(?P<spec>[\^~<>=!]*\s*\d[^"'\n]*)(?=["'])""",
    re.IGNORECASE,
)
_CONDA = re.compile(r"^(?P<before>\s*-\s*flowyml)=\d[\w.*]*\s*$", re.IGNORECASE)
_BY_URL = re.compile(r"(?<![\w-])(?:flowyml\s*@|git\+[^\s\"']*/flowyml(?:\.git)?\b)", re.IGNORECASE)
_LOCKED = re.compile(
    r"""name\s*=\s*"flowyml"\s*\n\s*version\s*=\s*"0\.|"flowyml"\s*:\s*\{[^}]*"version"\s*:\s*"==0\.""", re.IGNORECASE
)
_LOWER = re.compile(r"(===|==|~=|>=|>)\s*v?(\d+)")


def update_pins(text: str, style: Style) -> Migrated:
    """Change each requirement of FlowyML that allows 0.x to 1.0, and note those that a person must change."""
    notes: list[Note] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE or "flowyml" not in (code := _without_comment(line)).lower():
            continue
        is_hashed = "--hash" in code or (style == "requirements" and code.rstrip("\r ").endswith("\\"))
        changed = _changed(code, style)
        if changed != code and is_hashed:
            notes.append(Note(Item.PINS, number, "pinned with hashes: pin it again, at 1.0 or later", False))
            continue
        if changed != code:
            notes.append(Note(Item.PINS, number, f"asks for {_shown(changed)}", True))
            lines[number - 1] = changed + line[len(code) :]
        if _BY_URL.search(code) and not re.search(r"@v?[1-9]", code):
            notes.append(Note(Item.PINS, number, "installed from a repository: name a revision of 1.0", False))
        notes += _unknown_extras(code, number)
    return Migrated("\n".join(lines), unaccepted(notes, text))


def update_locks(text: str) -> Migrated:
    """Note a lock file: only its tool can update it."""
    found = _LOCKED.search(text)
    if found is None:
        return Migrated(text, ())
    line = text.count("\n", 0, found.start()) + 1
    return Migrated(text, [Note(Item.PINS, line, "locked below 1.0: lock it again", False)])


def _changed(code: str, style: Style) -> str:
    if style == "toml":
        code = _TABLE.sub(lambda match: match["before"] + _table_spec(match["spec"]), code)
    if style == "shell":
        code = _CONDA.sub(lambda match: f"{match['before']}>={_wanted()}", code)
    return _PIN.sub(lambda match: _pin(match, code, style), code)


def _pin(match: re.Match[str], line: str, style: Style) -> str:
    if not _is_old(match["spec"]):
        return match[0]
    before = line[: match.start()]
    is_safe = style != "shell" or before.endswith(("'", '"')) or re.fullmatch(r"\s*-\s*", before) is not None
    spec = _new_spec(match["spec"]) if is_safe else f"~={_wanted()}"  # a shell takes > for a file to write to
    return "".join(
        (match["name"], match["extras"] or "", match["space"], match["open"] or "", spec, match["close"] or "")
    )


def _is_old(spec: str) -> bool:
    return not any(int(major) >= 1 for _, major in _LOWER.findall(spec))


def _new_spec(spec: str) -> str:
    upper = [f",{operator}{spec_of}" for operator, spec_of in _kept_uppers(spec)]
    return f">={_wanted()}" + "".join(upper)


def _wanted() -> str:
    """Return the required version: this release, or this pre-release, which only a requirement that names it allows."""
    found = re.match(r"(\d+\.\d+)(?:\.(\d+))?((?:a|b|rc)\d+)?(\.dev\d+)?", __version__)
    if found is None:
        return "1.0"
    release, patch, *before = found.groups()
    if not any(before):
        return release
    return "".join((release, f".{patch}" if patch and int(patch) else "", *(each or "" for each in before)))


def _kept_uppers(spec: str) -> list[tuple[str, str]]:
    """Return the upper bounds that allow 1.0."""
    bounds = re.findall(r"(?<![=!~<>])(<=|<)\s*(v?(\d+)[\w.*+!-]*)", spec)
    return [(operator, bound) for operator, bound, major in bounds if int(major) >= 2]


def _table_spec(spec: str) -> str:
    """Convert a version in Poetry's and Pipenv's own notation: ``^0.9``, ``~0.9`` and a bare version."""
    if re.match(r"[\^~]?\s*[1-9]", spec) or not _is_old(spec):
        return spec
    if spec.startswith("^") or (spec.startswith("~") and not spec.startswith("~=")):
        return f"^{_wanted()}"
    return _new_spec(spec)


def _shown(code: str) -> str:
    match = _PIN.search(code)
    return match[0].strip() if match else f"version {_wanted()}"


def _unknown_extras(code: str, number: int) -> list[Note]:
    match = re.search(r"(?<![\w./-])flowyml\s*\[([\w\s,.-]*)\]", code, re.IGNORECASE)
    known = _extras()
    if match is None or not known:
        return []
    unknown = [
        extra for extra in (part.strip().lower() for part in match[1].split(",")) if extra and extra not in known
    ]
    return [
        Note(Item.PINS, number, f"1.0 has no extra {extra!r}: it has {', '.join(sorted(known))}", False)
        for extra in unknown
    ]


def _extras() -> set[str]:
    try:
        return set(metadata("flowyml").get_all("Provides-Extra") or ())
    except PackageNotFoundError:
        return set()


def _without_comment(line: str) -> str:
    """Return the line without its comment; a ``#`` in a URL does not begin a comment."""
    match = re.search(r"(?:^|(?<=\s))#", line)
    return line if match is None else line[: match.start()]


_WORD = re.compile(rf"(?<![\w.-])({'|'.join(sorted(STATUS_WORDS))})(?![\w-])")
_LOWER_WORD = re.compile(rf"(['\"])({'|'.join(sorted(STATUS_WORDS)).lower()})\1")
_READS = re.compile(
    r"==|!=|=~|\[\[? |\btest\b|\b[ef]?grep\b|\bjq\b|\bawk\b|\bsed\b|\bcontains\(|\bselect\(|\bfindstr\b"
)
_PATTERN = re.compile(r"^\s*\(?[\"']?[A-Z_]+[\"']?(\s*\|\s*[\"']?[A-Z_]+[\"']?)*\)")
_ADVICE = "reads a status string: go by the exit code of `flowyml run` or `flowyml status`, or by `--json`"


def migrate_script(text: str, modules: Iterable[str]) -> Migrated:
    """Migrate a script. ``modules`` are the names of the project's Python files that use FlowyML.

    A script that runs one of them is checked.
    """
    pins = update_pins(text, "shell")
    if not _is_concerned(text, modules):
        return pins
    notes = list(pins.notes)
    for number, line in enumerate(pins.text.split("\n"), 1):
        if len(line) > LONGEST_LINE or line.lstrip().startswith("#"):
            continue
        is_read = _WORD.search(line) and (_READS.search(line) or _PATTERN.match(line))
        if is_read or (_LOWER_WORD.search(line) and "==" in line):
            notes.append(Note(Item.SCRIPTS, number, _ADVICE, False))
    return Migrated(pins.text, unaccepted(notes, text))


def _is_concerned(text: str, modules: Iterable[str]) -> bool:
    if "flowyml" in text.lower():
        return True
    names = [name for name in modules if name not in ("__init__", "setup", "conftest")]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(\.py\b|\b(?=\s|$))", text) for name in names if name in text)
