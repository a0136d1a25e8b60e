"""Compile pipelines of the suite, here and in another process, which runs this module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pkgutil import resolve_name
from typing import Any

from flowyml import Pipeline
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines, pipelines_branches, pipelines_cleanup, pipelines_retries, pipelines_secrets

__all__ = ["digests", "digests_elsewhere"]

_FOLDER = "/shared"
_SAMPLES: Mapping[str, Callable[[], Pipeline]] = {
    "names": pipelines.hostile,
    "loops and branches": lambda: pipelines_branches.mixed(_FOLDER),
    "clean-up": lambda: pipelines_cleanup.tidied(_FOLDER),
    "an execution group": lambda: pipelines_retries.together(_FOLDER),
    "secrets": lambda: pipelines_secrets.shows_secret(_FOLDER),
}


def digests(kind: type[Any], options: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the digest of each file of each sample, in order, or the words with which the engine refuses it."""
    orchestrator: Orchestrator = kind(**options)
    found = {}
    for sample, make in _SAMPLES.items():
        try:
            files = orchestrator.compile_pipeline(make())
        except UnsupportedFeatureError as error:
            found[sample] = [str(error)]
        else:
            found[sample] = [f"{sha256(data).hexdigest()} {file}" for file, data in files.items()]
    return found


def digests_elsewhere(kind: type[Any], options: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the same from another process, in which sets have another order."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-m", __name__, f"{kind.__module__}:{kind.__qualname__}", json.dumps(dict(options))],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(digests(resolve_name(sys.argv[1]), json.loads(sys.argv[2]))))
