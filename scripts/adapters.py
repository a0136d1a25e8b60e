"""Bring the lists of adapters up to date with the entry points in pyproject.toml, which are the one list of them.

No tool reads another one's settings, so what mypy, import-linter, coverage, the wheel and the docs must know of each
adapter is written here. With `--check`, write nothing and fail when a list is not what it would be; `make lint` does.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
VALUE = r'\[[^\]]*\]|"[^"]*"'
COPIES = re.compile(r"(^\[tool\.coverage\.paths\]\nflowyml = .*\n)(?:flowyml_\w+ = .*\n)*", re.MULTILINE)


def adapters(pyproject: str) -> list[str]:
    """The engines whose adapters are folders of this repository, sorted."""
    points = tomllib.loads(pyproject)["project"]["entry-points"]["flowyml.orchestrators"]
    return sorted(name for name, target in points.items() if target.startswith(f"flowyml_{name}:"))


def updated(file: str, text: str, engines: Sequence[str]) -> str:
    """The text of a settings file with its lists of adapters as they are to be."""
    for start, key, items in lists(file, text, engines):
        pattern = rf"(?P<before>^{re.escape(start)}$(?:(?!^\[).)*?^ *{key}(?: = |: ))(?:{VALUE})"
        found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise SystemExit(f"{file}: no {key} below {start!r}. Bring scripts/adapters.py up to date.")
        text = f"{text[: found.end('before')]}{written(file, key, items)}{text[found.end() :]}"
    return with_copies(text, engines) if file == "pyproject.toml" else text


def with_copies(text: str, engines: Sequence[str]) -> str:
    """The same with a line for each adapter, by which coverage counts the copies that workers run as the original."""
    lines = [f'flowyml_{name} = ["adapters/{name}/flowyml_{name}", "*/flowyml_{name}"]\n' for name in engines]
    text, count = COPIES.subn(lambda found: found[1] + "".join(lines), text)
    if not count:
        raise SystemExit("pyproject.toml: no [tool.coverage.paths]. Bring scripts/adapters.py up to date.")
    return text


def lists(file: str, text: str, engines: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """What each list holds: the line that it comes after, its key, its items."""
    packages = [f"flowyml_{name}" for name in engines]
    if file == "mkdocs.yml":
        yield "        python:", "paths", [".", *(f"adapters/{name}" for name in engines)]
        return
    folders = [f"adapters/{name}/flowyml_{name}" for name in engines]
    yield "[tool.hatch.build.targets.wheel]", "packages", ["flowyml", *folders]
    yield "[tool.mypy]", "mypy_path", [f"$MYPY_CONFIG_FILE_DIR/adapters/{name}" for name in engines]
    yield "[tool.importlinter]", "root_packages", ["flowyml", *packages]
    engine_packages = [name for name in _forbidden(text) if not name.startswith("flowyml_")]
    yield 'name = "The core knows no adapter and no engine"', "forbidden_modules", [*packages, *engine_packages]
    yield 'name = "Adapters stand on the interface, not on the rooms above it"', "source_modules", packages
    roots_users = [f"{name}.**" for name in packages]
    yield 'name = "Adapters import flowyml\'s root only to make ready-made steps"', "source_modules", roots_users
    yield 'name = "Adapters know nothing of one another"', "modules", packages
    yield 'name = "No circles, imports within functions included"', "ancestors", ["flowyml", *packages]
    yield "[tool.coverage.run]", "source_pkgs", ["flowyml", *packages]


def written(file: str, key: str, items: Sequence[str]) -> str:
    """A list as its file has it: on one line where it fits."""
    if file == "mkdocs.yml":
        return f"[{', '.join(items)}]"
    if key == "mypy_path":
        return json.dumps(":".join(items))
    line = json.dumps(items)
    rows = "".join(f"  {json.dumps(item)},\n" for item in items)
    return line if len(f"{key} = {line}") <= WIDTH else f"[\n{rows}]"


def _forbidden(pyproject: str) -> list[str]:
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (contract,) = [item for item in contracts if item["name"] == "The core knows no adapter and no engine"]
    found: list[str] = contract["forbidden_modules"]
    return found


def main(arguments: Sequence[str]) -> int:
    engines = adapters((ROOT / "pyproject.toml").read_text())
    stale = False
    for file in ("pyproject.toml", "mkdocs.yml"):
        text = (ROOT / file).read_text()
        new = updated(file, text, engines)
        if new != text:
            stale = True
            if "--check" not in arguments:
                (ROOT / file).write_text(new)
                print(f"wrote {file}")
    if stale and "--check" in arguments:
        print("The lists of adapters are not those of the entry points. Run: .venv/bin/python scripts/adapters.py")
    return int(stale and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
