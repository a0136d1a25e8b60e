"""Ready-made steps for common tasks. They run on every engine.

    from flowyml.steps import bash, http, sql

Each is a step: call it in the function of a pipeline, name it and retry it with ``.options(name=…, retry=…)``, map it
with ``.map(…)``. Credentials are named, never written: ``sql.options(secrets={"url": "warehouse/url"})``. A step
imports its library when it runs, so a worker needs only the libraries of the steps that it runs.
"""

from __future__ import annotations

from flowyml.steps.commands import bash, docker_run
from flowyml.steps.databases import sql
from flowyml.steps.files import copy_files, move_files, wait_for_file
from flowyml.steps.mail import email
from flowyml.steps.web import http, wait_for_http

__all__ = [
    "bash",
    "copy_files",
    "docker_run",
    "email",
    "http",
    "move_files",
    "sql",
    "wait_for_file",
    "wait_for_http",
]
