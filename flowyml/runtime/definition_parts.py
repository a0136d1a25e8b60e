"""Stand-ins on a worker for what defines or starts pipelines: modules may use them while they are loaded."""

from __future__ import annotations

from typing import Any, Self

from flowyml.core.errors import DefinitionError
from flowyml.core.loading import is_loading

__all__ = ["Engine", "Part"]


class Part:
    """A part of a pipeline's definition. Its attributes, and the results of its calls, are such parts, too."""

    _advice = "Take what the step needs as a parameter, or start pipelines outside of steps."

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Part:
        if name.startswith("__"):
            raise AttributeError(name)
        if not is_loading():
            raise DefinitionError(
                f"{self._what}: a step asks for .{name}, but pipelines cannot be built or started where steps run. "
                f"{self._advice}"
            )
        return Part(f"{self._what}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Part:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self._what}>"


class Engine(Part):
    """An orchestrator, or what one is made with. Classes may derive from it.

    Accessing what starts a pipeline ends the loading of the script.
    """

    _advice = "To ask an engine in a step, import its orchestrator inside the step's function."

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__("an orchestrator")

    def __getattr__(self, name: str) -> Part:
        from flowyml.runtime.loading import stop_if_loading

        if name in ("run_pipeline", "schedule_pipeline", "deploy_pipeline"):
            stop_if_loading("of this script", name)
        return super().__getattr__(name)
