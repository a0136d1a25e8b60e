"""Buttons on the page of a task that lead to its outputs, by the option ``artifact_links``.

Airflow 3 asks an operator for its links when the DAG file is read and when the task has run, and stores them as XComs,
so they need no plugin. On Airflow 2 the webserver creates them, from classes of a plugin in its own environment; so
there are none. Source: Airflow, *Define an operator extra link*.

This file travels in the bundle, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from flowyml.artifacts import default_url, is_reference, open_store
from flowyml.artifacts.packing import REFERENCE
from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import refuse_credentials

__all__ = ["KEY", "LINK", "LINK_IMPORTS", "add_links", "check_template"]

KEY = "{key}"
"""The placeholder in the option for the key of an output within the store."""

LINK_IMPORTS = """\
try:
    from airflow.sdk import BaseOperatorLink
except ImportError:  # Airflow 2, which takes links from plugins alone
    BaseOperatorLink = None
"""

LINK = '''\
class Link(BaseOperatorLink or object):
    """A button on the page of a task that leads to an output of its step."""

    template = ARTIFACT_LINKS

    def __init__(self, output, page=""):
        self.output = output
        self.page = page

    @property
    def name(self):
        return self.output

    @property
    def xcom_key(self):
        return f"flowyml.link.{{self.output}}"

    def get_link(self, operator, *, ti_key):
        return self.page


def with_links(task, outputs):
    """Announce the buttons of a task, where Airflow can show them; when it has run, they have pages."""
    if BaseOperatorLink:
        task.operator_extra_links = [Link(output) for output in outputs]


{kinds}.link = Link if BaseOperatorLink else None
'''


def check_template(value: str | None) -> None:
    """Raise ``ConfigurationError`` for a text that is not an address of output pages, and for credentials in it."""
    if value is None:
        return
    if not value.startswith(("https://", "http://")) or KEY not in value:
        raise ConfigurationError(
            f"artifact_links={value!r:.200} is not an address for a browser, with {KEY} for the place of an output in "
            f"the store: 'https://files.example.org/flowyml/{KEY}'."
        )
    address, _, query = value.partition("?")
    others = "&".join(pair for pair in query.split("&") if KEY not in pair)
    refuse_credentials(f"{address}?{others}" if others else address, "artifact_links", "A page asks who is there.")


def add_links(operator: Any, artifacts: str | None, outputs: Mapping[str, Any]) -> None:
    """Add the links of its packed outputs to the operator of a task that has run, if its DAG file asks for them.

    ``artifacts`` is the store of the outputs; None is the default of this worker.
    """
    if link := getattr(operator, "link", None):
        store = open_store(artifacts or default_url()).url
        operator.operator_extra_links = [link(name, page) for name, page in _pages(link.template, store, outputs)]


def _pages(template: str, store: str, outputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and address of the page of each output in the store; for a figure that of its picture."""
    for name, packed in outputs.items():
        if is_reference(packed):
            reference = packed[REFERENCE]
            url = str(reference.get("picture", reference)["url"])
            if url.startswith(f"{store}/"):
                yield name, template.replace(KEY, quote(url.removeprefix(f"{store}/")))
