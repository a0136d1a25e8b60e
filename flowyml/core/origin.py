"""The origin of a pipeline: the same on every machine that has the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Origin"]


class Origin(NamedTuple):
    """The project and the file of a pipeline. Never an absolute path.

    ``project`` is the namespace of FlowyML's settings, else the project's name in ``pyproject.toml``, else the git
    remote as ``owner/name``; it is empty without any of these. ``module`` is the file's path from the project's
    root, or ``"notebook"``; without a project it begins with the name of the file's folder.

    >>> str(Origin("acme/forecasts", "pipelines/train.py"))
    'acme/forecasts: pipelines/train.py'
    """

    project: str
    module: str

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON."""
        return {"project": self.project, "module": self.module}

    @classmethod
    def from_dict(cls, plain: object) -> Origin | None:
        """Read the output of ``to_dict``; None for anything else, such as records from before origins existed.

        >>> Origin.from_dict({"project": "acme", "module": "train.py"})
        Origin(project='acme', module='train.py')
        >>> Origin.from_dict(None)
        """
        if not isinstance(plain, Mapping):
            return None
        project, module = plain.get("project"), plain.get("module")
        return cls(project, module) if isinstance(project, str) and isinstance(module, str) else None

    def __str__(self) -> str:
        return f"{self.project}: {self.module}" if self.project else self.module
