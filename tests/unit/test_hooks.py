"""Hooks: which methods they may have, and what becomes of their errors."""

from __future__ import annotations

import pytest

from flowyml import Pipeline
from flowyml.core.errors import (
    DefinitionError,
    StepCancelledError,
)
from flowyml.core.hooks import PipelineHook, fire


class TestHooks:
    def test_methods_that_cannot_be_called_are_refused(self) -> None:
        class Waits(PipelineHook):
            async def on_step_end(self, step_name: str, outputs: object, duration: float) -> None: ...  # type: ignore[override]  # a coroutine, which hooks cannot be

        class Mistyped(PipelineHook):
            def on_pipline_end(self, *_: object) -> None: ...

        class Short(PipelineHook):
            def on_error(self, step_name: str) -> None: ...  # type: ignore[override]  # wrong on purpose

        class Nothing(PipelineHook):
            on_error = None  # type: ignore[assignment]  # as users write it

        for hook, message in (
            (Waits(), r"Pipeline 'p': hook Waits.on_step_end is async, .* asyncio.run"),
            (Mistyped(), r"'on_pipline_end', .* Did you mean 'on_pipeline_end'\?"),
            (Short(), r"on_error takes .*, but is called with \(step_name, error\)"),
            (Nothing(), r"hook Nothing\.on_error is None\. Define a method, or leave it out\."),
        ):
            with pytest.raises(DefinitionError, match=message):
                Pipeline("p", hooks=[hook])

        class Free(PipelineHook):
            def on_error(self, *arguments: object) -> None: ...

        assert Pipeline("p", hooks=[Free()]).hooks

    @pytest.mark.parametrize("error", [RuntimeError("broken hook"), SystemExit(3)])
    def test_what_a_hook_raises_is_logged_and_goes_no_further(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str] = []

        class Bad(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                raise error

        class Good(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                seen.append(step_name)

        fire([Bad(), Good()], "on_step_start", "train", {})
        assert seen == ["train"]
        assert "Hook Bad.on_step_start failed; the run goes on." in caplog.text

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, StepCancelledError])
    def test_what_stops_the_run_passes_through_a_hook(self, kind: type[BaseException]) -> None:
        class Hit(PipelineHook):
            def on_step_start(self, step_name: str, inputs: object) -> None:
                raise kind

        with pytest.raises(kind):
            fire([Hit()], "on_step_start", "train", {})
