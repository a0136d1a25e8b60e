"""The bundle as it stands in a pipeline's file: small, since each task whose arguments hold some of it is a pod."""

from __future__ import annotations

import base64
import bz2
import re
from collections.abc import Iterator
from functools import lru_cache
from io import StringIO
from tokenize import COMMENT, DEDENT, INDENT, NEWLINE, NL, STRING, TokenInfo, generate_tokens

from flowyml.plan.bundle import Bundle
from flowyml_kubeflow.flow import needs_flow

__all__ = ["compressed", "encoded", "with_launcher", "without_prose"]

_PARTS = ("__init__.py", "attempts.py", "files.py", "launcher.py", "names.py", "parameters.py", "retries.py")
_FLOW = ("fates.py", "flow.py", "flow_names.py", "pods.py", "records.py")  # what control flow needs
_USERS = ("code/", "objects/")
# What a script needs that makes an orchestrator when it is imported.
_MADE = ("capabilities.py", "connection.py", "orchestrator.py")
_MAKES = re.compile(rb"flowyml_kubeflow|Kubeflow|['\"]kubeflow['\"]")
# What a script does when it is imported, beside making an orchestrator, for which more of the package is needed.
_DEEPER = re.compile(
    rb"flowyml_kubeflow\.|KubeflowLocal|\.(?:attach|get_run(?:_status)?|health|runs|schedules|step_runs)\("
)
_NODES = "flowyml/runtime/nodes.py"  # the words of control flow
_LISTING = "flowyml/artifacts/listing.py"  # what engines' clients list
_SHARED = "flowyml/runtime/shared.py"  # processes of several steps
# The local engine with its step processes, what other engines' clients stand on, and what is said of code when it is
# bundled; and the code of a user's that may make or ask an engine when it is imported.
_ENGINES = (
    "flowyml/authoring/git_revisions.py", "flowyml/authoring/unguarded.py", "flowyml/authoring/function_versions.py",
    "flowyml/runtime/fork_child.py", "flowyml/runtime/processes.py",
    "flowyml/runtime/fork_server.py", "flowyml/runtime/fork_client.py",
    _NODES, _SHARED, "flowyml/runtime/walk.py",
    "flowyml/orchestrators/probe.py", "flowyml/orchestrators/remote.py",
    "flowyml/orchestrators/local/", "flowyml/orchestrators/http.py", "flowyml/orchestrators/deadlines.py",
    "flowyml/orchestrators/log_following.py", "flowyml/orchestrators/continued.py",
    "flowyml/runtime/kept.py", "flowyml/runtime/looks.py", "flowyml/runtime/seeds.py", "flowyml/plan/differences.py",
    "flowyml/orchestrators/settings.py", "flowyml/orchestrators/credential_scope.py",
    "flowyml/orchestrators/ownership.py", "flowyml/core/progress.py", "flowyml/core/submission_result.py",
    "flowyml/plan/layout.py", _LISTING,
)  # fmt: skip
# What only a terminal, a notebook or a repository needs. No pod imports it.
_AT_A_DESK = (
    "flowyml/artifacts/markdown.py", "flowyml/core/markdown.py",
    "flowyml/core/above.py", "flowyml/core/notebook.py", "flowyml/authoring/empty_run.py",
    "flowyml/authoring/git_revisions.py", "flowyml/orchestrators/replacements.py",
)  # fmt: skip
# What prunes, and what reads spans of time; and the code of a user's that may do so.
_PRUNING = (
    "flowyml/core/pruning.py", "flowyml/core/removal.py",
    "flowyml/artifacts/housekeeping.py", "flowyml/orchestrators/cache_pruning.py",
)  # fmt: skip
_SPANS = "flowyml/core/durations.py"
_MAY_SPAN = re.compile(rb"\bCache\b")
_PRUNES = re.compile(rb"flowyml\.core\.(?:durations|pruning|removal)|artifacts\.housekeeping|\.prun(?:e|able)\b")
# Needed by the local engine, and by plans with secrets.
_SECRETS = ("flowyml/runtime/secrets.py",)
# The conformance suite and its sample pipelines; and the code of a user's that names them.
_SUITE = "flowyml/testing/"
_DOWNLOADS = "flowyml/orchestrators/downloading.py"  # of which it and people's machines alone make use
_SAMPLES = {b"flowyml.testing": ("__init__.py", "pipelines.py"), b"flowyml.testing.pipelines_": ("pipelines_",)}
_TESTS = re.compile(rb"Conformance|flowyml\.testing\.(?!pipelines)")
# What makes a plan of a pipeline; and the code of a user's that may do so when it is imported.
_COMPILERS = tuple(
    f"flowyml/authoring/{name}.py" for name in ("annotations", "compiler", "nested", "scopes", "together")
)
_MAY_COMPILE = re.compile(rb"\.(?:compile|bundle|check_parameters|code|steps|_repr_html_)\b")
# What stores files and shows outputs to people; and the code of a user's that may give such.
_FACES = ("flowyml/artifacts/faces.py", "flowyml/artifacts/files.py", "flowyml/artifacts/libraries.py")
_MAY_BE_SHOWN = re.compile(
    rb"Annotated|Path|report|joblib|keras|lightgbm|matplotlib|numpy|pandas|plotly|polars|pyarrow|sklearn|torch|xgboost"
)
# What finds and keeps cached results, for plans with such steps; and what compiles those.
_CACHES = ("flowyml/runtime/caching.py", "flowyml/artifacts/contents.py")
_VERSIONS = "flowyml/authoring/function_versions.py"
_REACH = tuple(
    f"flowyml/authoring/{name}.py" for name in ("caching", "file_values", "module_files", "reach", "source_units")
)
# What sends metrics, for code that makes such a collector; and engines' clients, which also stand on the second.
_PUSH = ("flowyml/core/prometheus_push.py", "flowyml/core/web.py")
_PUSHES = re.compile(rb"Prometheus|prometheus|exchange")
_KINDS = "flowyml/plan/kinds.py"  # for either, and for what lists artifacts
_MAY_BE_ANOTHER = re.compile(
    rb"(?<!Kubeflow)Orchestrator(?!RetryPolicy)|orchestrators|get_orchestrator|SubmissionResult|core\.progress"
)
_OURS = ("flowyml/", "flowyml_kubeflow/", "cloudpickle/")


def with_launcher(bundle: Bundle) -> Bundle:
    """The bundle with what runs beside the steps; all but the user's code without its prose.

    The user's module may import the orchestrator's class, and finds this package first; hardly any imports more of it.
    """
    from importlib.resources import files

    contents, flow, together = bundle.files, needs_flow(bundle.plan), bool(bundle.plan.structure.together)
    users = [data for path, data in contents.items() if path.startswith(_USERS)]
    secrets = () if any(step.secrets for step in bundle.plan) else _SECRETS
    cached = any(step.caching for step in bundle.plan)
    compiles = any(_MAY_COMPILE.search(data) for data in users)
    kept = {path for path, is_needed in ((_NODES, flow), (_SHARED, together)) if is_needed}
    kept |= {_VERSIONS} if cached and compiles else set()
    if not any(_DEEPER.search(data) for data in users):
        contents = {path: data for path, data in contents.items() if not path.startswith("flowyml_kubeflow/")}
        if not any(_MAY_BE_ANOTHER.search(data) for data in users):
            push = () if any(_PUSHES.search(data) for data in users) else _PUSH
            needless = tuple(path for path in (*_ENGINES, *secrets, *push) if path not in kept)
            contents = {path: data for path, data in contents.items() if not path.startswith(needless)}
    if not any(_TESTS.search(data) for data in users):
        modules = [data for path, data in contents.items() if path.startswith("code/")]
        named = [names for word, names in _SAMPLES.items() if any(word in data for data in modules)]
        samples = tuple(f"{_SUITE}{name}" for names in named for name in names)
        contents = {
            path: data
            for path, data in contents.items()
            if not path.startswith((_SUITE, _DOWNLOADS)) or path.startswith(samples)
        }
    is_shown = any(_MAY_BE_SHOWN.search(data) for data in users)
    needless = (*(() if compiles else _COMPILERS), *(() if is_shown else _FACES))
    needless = needless if compiles or is_shown or _LISTING in contents else (*needless, _KINDS)
    needless += (*(() if cached else _CACHES), *(() if cached and compiles else _REACH))
    contents = {path: data for path, data in contents.items() if path not in needless}
    prunes = any(_PRUNES.search(data) for data in users)
    spans = prunes or any(_MAY_SPAN.search(data) for data in users)
    unused = (*_AT_A_DESK, *(() if prunes else _PRUNING), *(() if spans else (_SPANS,)))
    contents = {path: data for path, data in contents.items() if path not in unused}
    folder = files("flowyml_kubeflow")
    parts = (*_PARTS, *(_FLOW if flow else ()), *(_MADE if any(_MAKES.search(data) for data in users) else ()))
    contents.update({f"flowyml_kubeflow/{part}": folder.joinpath(part).read_bytes() for part in parts})
    return bundle.repacked(
        {path: without_prose(data) if path.startswith(_OURS) else data for path, data in contents.items()}
    )


@lru_cache(4)
def compressed(bundle: Bundle) -> bytes:
    """By bzip2, which gives the same bytes everywhere."""
    return bz2.compress(bundle.data)


def encoded(data: bytes) -> str:
    """Base64 has none of the characters that Kubernetes, Argo or KFP replace.

    The word that kfp.local replaces by the path of its own Python is broken in two: a reader skips the space.
    """
    return base64.b64encode(data).decode().replace("python3", "python 3")


@lru_cache(512)
def without_prose(source: bytes) -> bytes:
    r"""Python without comments and docstrings, a quarter of the compressed bytes; lines keep their numbers.

    >>> without_prose(b'def f():  # why\n    \"\"\"What.\n\n    More.\n    \"\"\"\n    return "# kept"\n')
    b'def f():\n    ""\n\n\n\n    return "# kept"\n'
    """
    text = source.decode()
    lines = [*StringIO(text)]
    for token in sorted(_prose(text), key=lambda token: token.start, reverse=True):
        (first, start), (last, end) = token.start, token.end
        before, after = lines[first - 1][:start], lines[last - 1][end:]
        kept = before.rstrip() if token.type == COMMENT else before + '""' + "\n" * (last - first)
        lines[first - 1 : last] = [kept + after]
    return "".join(lines).encode()


def _prose(text: str) -> Iterator[TokenInfo]:
    """Comments, and texts that are statements of their own."""
    statement: list[TokenInfo] = []
    for token in generate_tokens(StringIO(text).readline):
        if token.type == COMMENT:
            yield token
        elif token.type == NEWLINE:
            if [part.type for part in statement] == [STRING]:
                yield statement[0]
            statement = []
        elif token.type not in (NL, INDENT, DEDENT):
            statement.append(token)
