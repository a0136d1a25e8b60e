"""The bundle in a pipeline's file: small, since each task whose arguments have a part of it is a pod."""

from __future__ import annotations

import ast
import bz2
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path
from tokenize import COMMENT, DEDENT, INDENT, NEWLINE, NL, STRING, TokenInfo, generate_tokens

from flowyml.core.syntax import parsed
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow.definitions import EVERYTHING, Definitions
from flowyml_kubeflow.graph import needs_flow
from flowyml_kubeflow.imports import Modules, asked_by, asked_in_pickle, imported_at_top, module_name

__all__ = ["compressed", "for_pods", "without_prose"]

# What a pod starts: the unpacking of the bundle, the worker, and the process of a step. The user's modules may take
# any name from ``flowyml``, and packages of the image, which are not read here, all that is public.
_PUBLIC = ("flowyml", "flowyml.artifacts", "flowyml.artifacts.formats", "flowyml.core.errors")
_STARTS = {
    **dict.fromkeys(_PUBLIC, (EVERYTHING,)),
    "flowyml.core.hooks": ("PipelineHook",),
    "flowyml.runtime.bytecode_cache": ("keep_compiled",),
    "flowyml.runtime.unpacking": ("unpack_bundle",),
    "flowyml.runtime.spawn_child": ("main",),
    "flowyml_kubeflow.worker": ("main",),
}
_ADAPTERS = ("flowyml_airflow", "flowyml_kubeflow", "flowyml_prefect")
_PACKAGES = ("flowyml.orchestrators", *_ADAPTERS)
_ENGINES = frozenset(f"{package}.orchestrator" for package in _ADAPTERS) | {
    "flowyml.orchestrators.base", "flowyml.orchestrators.local", "flowyml.orchestrators.remote",
    "flowyml_kubeflow.local.orchestrator",
}  # fmt: skip
"""The modules of orchestrators."""
_TRIMMED = tuple(f"{package}/" for package in ("flowyml", *_ADAPTERS))
_OURS = (*_TRIMMED, "cloudpickle/")


@lru_cache(4)  # a bundle whose code does not fit into the pods is compiled again, for a store or with fewer pods
def for_pods(bundle: Bundle, *, runtime: str = "bundle") -> Bundle:
    """Return the bundle with the worker, and without what neither it nor the user's code needs of FlowyML.

    All but the user's code is without comments and docstrings. With the ``runtime`` of the image, the bundle has no
    FlowyML at all. A pod builds and starts no pipeline, so the names that the user's modules import from ``flowyml``
    are those of a worker, unless the code uses more names for building pipelines. So are orchestrators that modules use
    only while they are loaded; other names of their packages, such as ``run_dag``, come along as they are.
    """
    own = {f"flowyml_kubeflow/{path}": data for path, data in _sources().items()}
    kept = {path: data for path, data in bundle.files.items() if not path.startswith(_TRIMMED)}
    if runtime == "image":
        return bundle.repacked(kept)
    everything = {**own, **bundle.files}
    imports, while_loading = _asked(bundle.plan, kept, Modules(_importable(everything)))
    if not any(name.startswith("flowyml.authoring") for name in imports):
        everything["flowyml/__init__.py"] = everything.pop("flowyml/runtime/worker_names.py")
    unused = _ENGINES.difference(Modules(_importable(everything)).needed(imports, _STARTS))
    importable = {
        path: _stand_in(data) if module_name(path) in unused else data for path, data in _importable(everything).items()
    }
    shortened = {**dict.fromkeys(unused, ()), **_STARTS}
    whole = Modules(importable).needed(imports | while_loading, shortened)
    starts = {
        name: (EVERYTHING,) if name in whole else names for name, names in shortened.items() if names or name in whole
    }
    ours = tuple((path, data) for path, data in importable.items() if path.startswith(_TRIMMED))
    contents = {
        **_reached(ours, tuple(starts.items()), frozenset(_unused(bundle.plan))),
        **{path: data for path, data in importable.items() if module_name(path) in whole.difference(starts)},
        **kept,
    }
    return bundle.repacked(
        {path: without_prose(data) if path.startswith(_OURS) else data for path, data in contents.items()}
    )


@lru_cache(16)  # pipelines differ little in what they need of FlowyML, and each is compiled several times
def _reached(
    files: tuple[tuple[str, bytes], ...], starts: tuple[tuple[str, tuple[str, ...]], ...], unused: frozenset[str]
) -> Mapping[str, bytes]:
    return Definitions(dict(files)).reached(dict(starts), unused)


def _unused(plan: Plan) -> set[str]:
    """Return the modules for features that this plan does not use."""
    is_cached = any(step.caching for step in plan)
    used = {
        "flowyml.plan.types": any(item.typed for step in plan for item in step.inputs),
        "flowyml.runtime.caching": is_cached,
        "flowyml.artifacts.content_digest": is_cached,
        "flowyml.runtime.taken": False,  # no run takes results of another one here
        "flowyml.runtime.secrets": any(step.secrets for step in plan),
        "flowyml.runtime.shared": bool(plan.structure.execution_groups),
        "flowyml_kubeflow.pods": needs_flow(plan),
    }
    return {name for name, is_used in used.items() if not is_used}


@cache
def _sources() -> Mapping[str, bytes]:
    """Return the modules of this package, by their paths in it."""
    folder = Path(__file__).parent
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


def _importable(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the modules of packages: FlowyML's, and those that came along with it."""
    return {
        path: data
        for path, data in files.items()
        if "/" in path and path.endswith(".py") and not path.startswith("code/")
    }


def _asked(plan: Plan, files: Mapping[str, bytes], modules: Modules) -> tuple[set[str], set[str]]:
    """Return the names that the user's code may import: in its files, pickles and steps, and in included packages.

    The second set has the orchestrators, and their packages, that a module of the user's imports only while it is
    loaded. Adapters of third parties are packages, and use what they import.
    """
    names, while_loading = {step.function.partition(":")[0] for step in plan}, set[str]()
    for path, data in files.items():
        if path.startswith("objects/"):
            names |= asked_in_pickle(data)
        elif path.endswith(".py") and path != "__main__.py":
            module = path.removeprefix("code/")  # the path below the folder of its imports
            at_top = imported_at_top(data, module) if path.startswith("code/") else set[str]()
            engines = {
                name
                for name in at_top
                if name.removesuffix(".*") in _PACKAGES or not _ENGINES.isdisjoint(modules.known([name]))
            }
            names |= asked_by(data, module) - engines
            while_loading |= engines
    return names, while_loading


def _stand_in(module: bytes) -> bytes:
    """Return a module that has the public names of an orchestrator's, for modules to use while they are loaded."""
    (names,) = (
        ast.literal_eval(node.value)
        for node in parsed(module).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    targets = " = ".join(names)
    return f"from flowyml.runtime.definition_parts import Engine as _Engine\n{targets} = _Engine\n".encode()


@lru_cache(4)
def compressed(bundle: Bundle) -> bytes:
    """Compress with bzip2, which returns the same bytes everywhere."""
    return bz2.compress(bundle.data)


@lru_cache(512)
def without_prose(source: bytes) -> bytes:
    r"""Return Python without comments and docstrings, a quarter of the compressed bytes; lines keep their numbers.

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
    """Yield comments, and texts that are statements."""
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
