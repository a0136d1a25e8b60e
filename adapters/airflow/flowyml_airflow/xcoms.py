"""Encode outputs for XComs, and decode them. This file travels in the bundle, too.

An output is native JSON in its XCom, for Airflow's UI and other DAGs. Only a value that would come back as another one
is encoded, as a JSON text in a dict, which nothing on the way interprets: Airflow returns None for a missing XCom, and
revives a dict with keys of its serializer; some floats PostgreSQL returns as others.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from flowyml.artifacts import is_reference
from flowyml.artifacts.plain import is_exact_in_postgresql, parts

__all__ = ["carried", "is_kept_elsewhere", "restored"]

_TEXT = "$json"
_REVIVED = frozenset({"__classname__", "__id__", "__type"})  # source: airflow.sdk.serde, airflow.serialization.serde
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def carried(packed: Any) -> Any:
    """Encode a packed output for Airflow; returns it unchanged if it comes back as it is.

    >>> carried({"rows": [1, 2.0, None]}), carried([-0.0]), carried(None)
    ({'rows': [1, 2.0, None]}, {'$json': '[-0.0]'}, {'$json': 'null'})
    """
    is_native = packed is not None and _comes_back(packed) and not (isinstance(packed, str) and _is_decoded(packed))
    return packed if is_reference(packed) or is_native else {_TEXT: json.dumps(packed, ensure_ascii=False)}


def _comes_back(value: Any) -> bool:
    """Return whether Airflow's serializer and every database return a plain value as it is."""
    return is_exact_in_postgresql(value, in_any_order=True) and not any(
        isinstance(part, dict) and (part.keys() & _REVIVED or part.keys() == {_TEXT}) for part in parts(value)
    )


def _is_decoded(text: str) -> bool:
    """Return whether an XCom backend may decode a text that is JSON, as ``XComObjectStorageBackend`` does on 2."""
    if not _has_backend():
        return False
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


@cache
def _has_backend() -> bool:
    """Return whether XComs are not only in Airflow's own database."""
    try:
        conf = import_module("airflow.configuration").conf
    except ImportError:  # where no Airflow is, as in a test
        return False
    return not conf.get("core", "xcom_backend").endswith(".BaseXCom")


def restored(value: Any) -> Any:
    """Decode a value that ``carried`` encoded. Any other value, such as one from a task of Airflow's own, is unchanged.

    >>> restored({"$json": "-0.0"}), restored({"rows": 3})
    (-0.0, {'rows': 3})
    """
    if isinstance(value, dict) and value.keys() == {_TEXT}:
        with suppress(TypeError, ValueError, RecursionError):  # written by hand
            return json.loads(value[_TEXT])
    return value


def is_kept_elsewhere(value: Any, dag_id: str, run_id: str, task_id: str) -> bool:
    """Return whether an XCom, as Airflow's API shows it, is a path of this task in ``XComObjectStorageBackend``.

    Source: ``serialize_value`` of that class, in apache-airflow-providers-common-io.

    >>> is_kept_elsewhere("s3://us@xcoms/a/daily/r1/load/0b9e52b8-5a1c-4a6c-9be2-7a1b2c3d4e5f", "daily", "r1", "load")
    True
    >>> is_kept_elsewhere("s3://models/daily/r1/load/weights.json", "daily", "r1", "load")
    False
    """
    place = re.escape(f"/{dag_id}/{run_id}/{task_id}/")
    return isinstance(value, str) and bool(re.fullmatch(rf"[a-z][a-z0-9+.-]*://.*{place}{_UUID}(\.[a-z0-9]+)?", value))
