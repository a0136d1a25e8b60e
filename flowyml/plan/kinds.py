"""The kind of an output, for people: a table, a model, a figure. From its annotation, or else its value.

Classes are recognized by their own and their package's name, so that nothing is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

__all__ = ["KINDS", "kind_of", "kinds_annotated"]

KINDS = frozenset(
    {"table", "array", "metrics", "model", "figure", "text", "markdown", "file", "folder", "data"}
)  # fmt: skip

_OF_CLASSES = {
    ("pandas", "DataFrame"): "table", ("polars", "DataFrame"): "table", ("pyarrow", "Table"): "table",
    ("numpy", "ndarray"): "array", ("torch", "Tensor"): "array",
    ("matplotlib", "Figure"): "figure", ("plotly", "BaseFigure"): "figure",
    ("sklearn", "BaseEstimator"): "model", ("torch", "Module"): "model", ("keras", "Model"): "model",
    ("xgboost", "Booster"): "model", ("lightgbm", "Booster"): "model", ("catboost", "CatBoost"): "model",
}  # fmt: skip

_MOST_METRICS = 1000
_NUMBERS = (int, float)


def kind_of(value: Any) -> str:
    """Return one of ``KINDS``; ``data`` if no other fits."""
    kind = type(value)
    if kind is str:
        return "text"
    if isinstance(value, Path):
        return "folder" if value.is_dir() else "file" if value.is_file() else "data"
    if kind is dict:
        return "metrics" if _are_metrics(value) else "data"
    return _of_class(kind) or "data"


def kinds_annotated(annotation: Any, outputs: tuple[str, ...]) -> dict[str, str]:
    """Return the kinds of a step's outputs that a function's return annotation names; outputs without one are left out.

    >>> kinds_annotated(tuple[Annotated[dict, "model"], dict[str, float]], ("model", "scores"))
    {'model': 'model', 'scores': 'metrics'}
    """
    if len(outputs) == 1:
        parts: tuple[Any, ...] = (annotation,)
    else:
        parts = get_args(annotation) if get_origin(annotation) is tuple else ()
        if len(parts) == 2 and parts[1] is Ellipsis:
            parts = parts[:1] * len(outputs)
        parts = parts if len(parts) == len(outputs) else ()
    pairs = zip(outputs, map(_annotated, parts), strict=False)
    return {output: kind for output, kind in pairs if kind}


def _annotated(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        return next((note for note in notes if isinstance(note, str) and note in KINDS), "") or _annotated(inner)
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _annotated(members[0]) if len(members) == 1 else ""
    if get_origin(annotation) in (dict, Mapping):
        of_numbers = len(get_args(annotation)) == 2 and get_args(annotation)[1] in _NUMBERS
        return "metrics" if of_numbers else ""
    kind = get_origin(annotation) or annotation
    return _of_class(kind) if isinstance(kind, type) else ""


def _of_class(kind: type) -> str:
    named = ((base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__)
    return next((_OF_CLASSES[name] for name in named if name in _OF_CLASSES), "")


def _are_metrics(value: Mapping[Any, Any]) -> bool:
    return 0 < len(value) <= _MOST_METRICS and all(
        type(name) is str and type(number) in _NUMBERS for name, number in value.items()
    )
