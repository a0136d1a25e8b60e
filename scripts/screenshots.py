"""The pictures of the README and of docs/artifacts.md: one run live in a terminal and in Prefect's UI, and the same
pipeline in Airflow's; then what the UIs show of its artifacts.

    .venv/bin/python scripts/screenshots.py            # both engines
    .venv/bin/python scripts/screenshots.py prefect    # one of them

Real engines on 127.0.0.1, which end with it, and Debian's Chromium, headless. The pictures go to docs/assets.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pexpect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.demo_airflow import settings  # noqa: E402
from tests.engines.airflow import airflow3  # noqa: E402
from tests.engines.browser import browser_page  # noqa: E402
from tests.engines.prefect import PrefectServer, prefect_server  # noqa: E402

ASSETS = ROOT / "docs/assets"
RUN_ID = "train-2026-11-27"
COLUMNS = 96
MOST_BYTES = 150_000
# A step whose artifacts are shown, and what tells that they are: tables of a model and of metrics, a figure.
PICTURED = {"choose": "td:has-text('cross_validation')", "draw": "img[src^='data:image/png']"}
COLOURS = {1: "font-weight:bold", 2: "color:#8b949e", 31: "color:#f85149", 32: "color:#56d364", 33: "color:#e3b341",
           36: "color:#56d4dd"}  # fmt: skip
PAGE = """<meta charset="utf-8"><body style="margin:0;display:inline-block;background:#0d1117">
<pre style="margin:16px 20px;color:#e6edf3;font:14px/1.35 'DejaVu Sans Mono',monospace">{}</pre>"""


def main(engines: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="flowyml-shots-") as name:
        folder = Path(name)
        if "prefect" in engines:
            on_prefect(folder)
        if "airflow" in engines:
            on_airflow(folder)
    return 0


def on_prefect(folder: Path) -> None:
    """The run in the terminal and, when it has ended, its page."""
    with prefect_server(folder, PREFECT_SERVER_UI_ENABLED="true") as server:
        restart_with_its_own_address(server)
        screens = run(folder, "prefect", {"PREFECT_API_URL": f"{server.url}/api"})
        with browser_page(folder / "browser") as page:
            page.set_viewport_size({"width": 1200, "height": 800})
            draw(page, live(screens))
            page.set_viewport_size({"width": 1200, "height": 760})
            page.goto(address(screens))
            page.get_by_text("train_forest").first.wait_for()
            page.wait_for_timeout(4000)
            shot(page, "run-prefect.png")
            page.set_viewport_size({"width": 1000, "height": 980})
            for step, shown in PICTURED.items():
                page.goto(f"{server.url}/artifacts/key/train-classifier-step-{step}")
                page.locator("a[href*='/artifacts/artifact/']").first.click()  # the key's page lists its versions alone
                page.locator(shown).first.wait_for()
                page.wait_for_timeout(1000)  # the tabs slide in
                shot(page, f"artifact-prefect-{step}.png")


def restart_with_its_own_address(server: PrefectServer) -> None:
    """Its UI asks at port 4200 unless it is given the address."""
    server.kill()
    server.settings["PREFECT_SERVER_UI_API_URL"] = f"{server.url}/api"
    server.start()


def on_airflow(folder: Path) -> None:
    with airflow3(folder) as airflow:
        links = {"FLOWYML_ORCHESTRATORS__AIRFLOW__ARTIFACT_LINKS": "https://files.example.org/flowyml/{key}"}
        screens = run(folder, "airflow", {**settings(airflow, str(folder)), **links})
        with browser_page(folder / "browser") as page:
            page.set_viewport_size({"width": 1200, "height": 760})
            url = address(screens)
            page.goto(url)
            page.locator("input[name=username]").fill(airflow.username)
            page.locator("input[name=password]").fill(airflow.password)
            page.keyboard.press("Enter")
            page.wait_for_url(lambda at: "login" not in at)
            page.goto(url)
            page.get_by_text("train_forest").first.wait_for()
            page.wait_for_timeout(4000)
            shot(page, "run-airflow.png")
            shot_xcoms(page, url)
            shot_links(page, url)


def shot_xcoms(page: Any, url: str) -> None:
    """What the step gave that chose the model: wide enough that Airflow shows it without a scroll bar."""
    page.set_viewport_size({"width": 1400, "height": 790})
    page.goto(f"{url}/tasks/choose/xcom")
    page.get_by_role("cell", name="model").first.wait_for()
    page.locator("button[aria-label^='Expand all']").click()
    page.get_by_text("cross_validation").first.wait_for()
    page.wait_for_timeout(1000)
    shot(page, "artifact-airflow-choose.png")


def shot_links(page: Any, url: str) -> None:
    """What leads to the figure from the page of the step that drew it."""
    page.set_viewport_size({"width": 1200, "height": 520})
    page.goto(f"{url}/tasks/draw/details")
    page.locator("a[href^='https://files.example.org']").wait_for()
    page.wait_for_timeout(1000)
    shot(page, "artifact-airflow-draw.png")


def run(folder: Path, engine: str, environment: Mapping[str, str]) -> list[list[str]]:
    """Run the example on a terminal; what that shows after each change."""
    arguments = ["run", "examples/train_classifier.py", "--on", engine, "-p", "trees=300", "--run-id", RUN_ID]
    terminal = {"TERM": "xterm-256color", "FLOWYML_HOME": str(folder / "home"), **environment}
    child = pexpect.spawn(
        str(ROOT / ".venv/bin/flowyml"), arguments, dimensions=(40, COLUMNS), cwd=ROOT,
        env={**os.environ, **terminal}, timeout=900,
    )  # fmt: skip
    written = child.read().decode()
    child.close()
    if child.exitstatus:
        raise RuntimeError(written)
    prompt = f"\x1b[32m$\x1b[0m \x1b[1mflowyml {' '.join(arguments)}\x1b[0m\r\n"
    return list(replay(prompt + written))


def replay(written: str) -> Iterator[list[str]]:
    """The lines of the screen, each time that the cursor goes up: a terminal of the few words that rich speaks."""
    lines, row = [""], 0
    for part in re.split(r"(\r\n|\r|\n|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh])", written):
        if part in {"\r\n", "\n"}:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            yield list(lines)
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b[?"):
            lines[row] += part
    yield lines


def live(screens: list[list[str]]) -> list[str]:
    """The fullest screen on which a forest is being trained."""
    wanted = [screen for screen in screens if any(re.search(r"train_forest\W.*[1-9]", line) for line in screen)]
    return max((screen for screen in wanted if not any("COMPLETED" in line for line in screen)), key=weight)


def weight(screen: list[str]) -> int:
    return sum(bool(line) for line in screen)


def address(screens: list[list[str]]) -> str:
    """Of the run's page, as the command prints it."""
    found = re.search(r"https?://[^\s\x1b]+/runs/[^\s\x1b]+", "\n".join(screens[-1]))
    if found is None:
        raise LookupError("\n".join(screens[-1]))
    return found[0]


def draw(page: Any, screen: list[str]) -> None:
    """The screen as HTML, and a picture of it."""
    made = []
    for part in re.split(r"(\x1b\[[\d;]*m)", "\n".join(screen).rstrip()):
        if not part.startswith("\x1b["):
            made.append(escape(part))
        else:
            codes = [int(code) for code in part[2:-1].split(";") if code]
            style = ";".join(COLOURS[code] for code in codes if code in COLOURS)
            made.append(f'</span><span style="{style}">')
    page.set_content(PAGE.format(f"<span>{''.join(made)}</span>"))
    shot(page.locator("body"), "run-terminal.png")


def shot(what: Any, name: str) -> None:
    path = ASSETS / name
    what.screenshot(path=str(path))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES} bytes.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["prefect", "airflow"]))
