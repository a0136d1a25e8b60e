"""The bundle in a pipeline's file: small, since each task whose arguments hold some of it is a pod."""

from __future__ import annotations

import base64
import bz2
import re
from collections.abc import Iterator
from functools import lru_cache
from io import StringIO
from tokenize import COMMENT, DEDENT, INDENT, NEWLINE, NL, STRING, TokenInfo, generate_tokens

from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow.flow import needs_flow

__all__ = ["compressed", "encoded", "with_launcher", "without_prose"]

_PARTS = ("__init__.py", "attempts.py", "files.py", "launcher.py", "names.py", "parameters.py", "retries.py")
_FLOW = ("flow.py", "flow_names.py", "pods.py", "records.py", "step_decisions.py")  # what control flow needs
_USERS = ("code/", "objects/")
# What a script needs that makes an orchestrator when it is imported.
_MADE = ("capabilities.py", "connection.py", "orchestrator.py")
_MAKES = re.compile(rb"flowyml_kubeflow|Kubeflow|['\"]kubeflow['\"]")
# What a script does when it is imported, beside making an orchestrator, for which more of the package is needed.
_DEEPER = re.compile(
    rb"flowyml_kubeflow\.|KubeflowLocal|\.(?:attach|get_run(?:_status)?|health|runs|schedules|step_runs)\("
)
# What of FlowyML only some pipelines need, and by which words in a user's code; ``_needless`` joins them. A rule saves
# more than a kilobyte of the compressed code, of which a task takes 97: pipelines without such words stay one pod.
# The local engine with its step processes, what other engines' clients stand on, and what is said of code when it is
# bundled; and the code of a user's that may make or ask an engine when it is imported.
_ENGINES = (
    "flowyml/authoring/unguarded.py",
    "flowyml/runtime/fork_child.py", "flowyml/runtime/processes.py",
    "flowyml/runtime/fork_server.py", "flowyml/runtime/fork_client.py", "flowyml/runtime/walk.py",
    "flowyml/orchestrators/probe.py", "flowyml/orchestrators/remote.py",
    "flowyml/orchestrators/local/", "flowyml/orchestrators/http.py", "flowyml/orchestrators/deadlines.py",
    "flowyml/orchestrators/background.py", "flowyml/orchestrators/options.py",
    "flowyml/orchestrators/log_following.py", "flowyml/orchestrators/resuming.py",
    "flowyml/runtime/kept_outputs.py", "flowyml/runtime/packed_decisions.py", "flowyml/runtime/seeds.py",
    "flowyml/plan/differences.py",
    "flowyml/orchestrators/settings.py", "flowyml/orchestrators/credential_scope.py",
    "flowyml/orchestrators/ownership.py", "flowyml/core/progress.py", "flowyml/core/submission_result.py",
    "flowyml/orchestrators/run_outputs.py", "flowyml/artifacts/listing.py", "flowyml/core/following.py",
    "flowyml/plan/layout.py",
)  # fmt: skip
_MAY_BE_ANOTHER = re.compile(
    rb"(?<!Kubeflow)Orchestrator(?!RetryPolicy)|orchestrators|get_orchestrator|SubmissionResult|core\.progress"
)
_NODES = ("flowyml/runtime/nodes.py",)  # the words of control flow
_SHARED = ("flowyml/runtime/shared.py",)  # processes of several steps
_SECRETS = ("flowyml/runtime/secrets.py",)
# What sends metrics, for code that makes such a collector.
_PUSH = ("flowyml/core/prometheus_push.py", "flowyml/core/web.py")
_PUSHES = re.compile(rb"Prometheus|prometheus|exchange")
# What only a terminal, a notebook or a repository needs. No pod imports it.
_AT_A_DESK = (
    "flowyml/artifacts/markdown.py", "flowyml/core/markdown.py",
    "flowyml/core/progress_output.py", "flowyml/core/notebook.py", "flowyml/authoring/empty_run.py",
    "flowyml/authoring/git_revisions.py", "flowyml/orchestrators/replacements.py",
)  # fmt: skip
# What prunes; and the code of a user's that may do so.
_PRUNING = (
    "flowyml/core/pruning.py", "flowyml/core/removal.py",
    "flowyml/artifacts/housekeeping.py", "flowyml/orchestrators/cache_pruning.py",
)  # fmt: skip
_PRUNES = re.compile(rb"flowyml\.core\.(?:pruning|removal)|artifacts\.housekeeping|\.prun(?:e|able)\b")
# The conformance suite, its sample pipelines and what it alone uses in a pod; and the code of a user's that names them.
_SUITE = ("flowyml/testing/", "flowyml/orchestrators/downloading.py")
_SAMPLES = {b"flowyml.testing": ("__init__.py", "pipelines.py"), b"flowyml.testing.pipelines_": ("pipelines_",)}
_TESTS = re.compile(rb"Conformance|flowyml\.testing\.(?!pipelines)")
# What makes a plan of a pipeline; and the code of a user's that may do so when it is imported.
_COMPILERS = tuple(
    f"flowyml/authoring/{name}.py" for name in ("annotations", "compiler", "nested", "scopes", "together")
)
_MAY_COMPILE = re.compile(rb"\.(?:compile|bundle|check_parameters|code|steps|_repr_html_)\b")
# What stores files and shows outputs to people; and the code of a user's that may give such.
_PREVIEWS = ("flowyml/artifacts/previews.py", "flowyml/artifacts/files.py", "flowyml/artifacts/libraries.py")
_MAY_BE_SHOWN = re.compile(
    rb"Annotated|Path|report|joblib|keras|lightgbm|matplotlib|numpy|pandas|plotly|polars|pyarrow|sklearn|torch|xgboost"
)
# What finds and keeps cached results, for plans with such steps; and what compiles those.
_CACHES = ("flowyml/runtime/caching.py", "flowyml/artifacts/content_digest.py")
_CODE_DIGEST = tuple(
    f"flowyml/authoring/{name}.py" for name in ("caching", "code_digest", "file_values", "module_files", "source_units")
)
_OURS = ("flowyml/", "flowyml_kubeflow/", "cloudpickle/")


def with_launcher(bundle: Bundle) -> Bundle:
    """The bundle with what runs beside the steps; all but the user's code without its prose.

    The user's module may import the orchestrator's class, and finds this package first; hardly any imports more of it.
    """
    from importlib.resources import files

    users = b"\n".join(data for path, data in bundle.files.items() if path.startswith(_USERS))
    others = any("/" in path and not path.startswith((*_OURS, *_USERS)) for path in bundle.files)
    needless, samples = _needless(bundle.plan, users, others), _samples(bundle)
    contents = {
        path: data
        for path, data in bundle.files.items()
        if not path.startswith(needless) or path.startswith(samples)
    }  # fmt: skip
    folder = files("flowyml_kubeflow")
    parts = (*_PARTS, *(_FLOW if needs_flow(bundle.plan) else ()), *(_MADE if _MAKES.search(users) else ()))
    contents.update({f"flowyml_kubeflow/{part}": folder.joinpath(part).read_bytes() for part in parts})
    return bundle.repacked(
        {path: without_prose(data) if path.startswith(_OURS) else data for path, data in contents.items()}
    )


def _needless(plan: Plan, users: bytes, others: bool) -> tuple[str, ...]:
    """What of FlowyML no pod of these steps imports, by what the plan and the user's code say.

    ``others`` says that another adapter comes along, whose steps (``external_dag``) stand on what engines' clients do.
    """

    def say(pattern: re.Pattern[bytes]) -> bool:
        return bool(pattern.search(users))

    is_whole = say(_DEEPER)
    engines, compiles = is_whole or others or say(_MAY_BE_ANOTHER), say(_MAY_COMPILE)
    cached = any(step.caching for step in plan)
    rules = (
        (("flowyml_kubeflow/",), is_whole),
        (_ENGINES, engines),
        (_NODES, engines or needs_flow(plan)),
        (_SHARED, engines or bool(plan.structure.together)),
        (_SECRETS, engines or any(step.secrets for step in plan)),
        (_PUSH, engines or say(_PUSHES)),
        (_AT_A_DESK, False),
        (_PRUNING, say(_PRUNES)),
        (_SUITE, say(_TESTS)),
        (_COMPILERS, compiles),
        (_PREVIEWS, say(_MAY_BE_SHOWN)),
        (_CACHES, cached),
        (_CODE_DIGEST, cached and compiles),
    )
    return tuple(path for paths, is_needed in rules if not is_needed for path in paths)


def _samples(bundle: Bundle) -> tuple[str, ...]:
    """The sample pipelines of the conformance suite that the user's modules name."""
    modules = [data for path, data in bundle.files.items() if path.startswith("code/")]
    named = [names for word, names in _SAMPLES.items() if any(word in data for data in modules)]
    return tuple(f"{_SUITE[0]}{name}" for names in named for name in names)


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
