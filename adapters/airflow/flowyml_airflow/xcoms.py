"""Encode outputs for XComs, and decode them. This file travels in the bundle, too.

Databases store XComs as JSON of their own kind: SQLite takes ``10.0`` for the number 10 (its column has numeric
affinity), PostgreSQL's JSONB has no -0.0 and sorts keys, and Airflow itself revives a dict with ``__classname__`` and
returns None for a missing XCom. On Airflow 2, ``XComObjectStorageBackend`` decodes a text that is JSON itself. So all
but the plainest values are stored as a JSON text in a dict, which nothing on the way interprets.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from flowyml.artifacts import is_reference

__all__ = ["carried", "is_kept_elsewhere", "restored"]

_TEXT = "$json"
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def carried(packed: Any) -> Any:
    """Encode a packed output for Airflow.

    >>> carried(10.0), carried("ten"), carried(True), carried(None), carried("10")
    ({'$json': '10.0'}, 'ten', True, {'$json': 'null'}, {'$json': '"10"'})
    """
    if isinstance(packed, int) or is_reference(packed) or (isinstance(packed, str) and not _is_json(packed)):
        return packed
    return {_TEXT: json.dumps(packed, ensure_ascii=False)}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


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
