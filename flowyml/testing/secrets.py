"""Secrets by name: they reach the step that names them, and nothing shows their values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from flowyml.core.capabilities import Feature
from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.secrets import variable_of
from flowyml.testing import pipelines_secrets
from flowyml.testing.base import COMPLETED, FAILED, Conformance, Done, sample
from flowyml.testing.pipelines_secrets import MISSING, NAME, VALUE

__all__ = ["SecretConformance"]


_shown = sample(pipelines_secrets.shows_secret, needs=[Feature.SECRETS], shares_run=True)
_raised = sample(pipelines_secrets.raises_secret, needs=[Feature.SECRETS, Feature.HOOKS])
_returned = sample(pipelines_secrets.gives_secret, needs=[Feature.SECRETS])
_lacking = sample(pipelines_secrets.lacks_secret, needs=[Feature.SECRETS])
_looped = sample(pipelines_secrets.loops_secret, needs=[Feature.SECRETS, Feature.FAN_OUT], shares_run=True)


class SecretConformance(Conformance):
    """Secrets by name.

    Override ``keep_secret`` if the engine does not read the environment of this process, and ``finds_missing_secrets``
    if it cannot list missing secrets; it must then refuse.
    """

    finds_missing_secrets = True

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls) -> Callable[[str, str], None]:
        """Return a function that stores a value under a reference in the engine's store."""
        return lambda reference, value: os.environ.__setitem__(variable_of(reference), value)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def kept(cls, keep_secret: Callable[[str, str], None]) -> Iterator[None]:
        """Store the one secret of the sample pipelines, before any of them is submitted."""
        keep_secret(NAME, VALUE)
        yield
        os.environ.pop(variable_of(NAME), None)

    @_shown
    def test_an_argument_and_a_variable_are_filled(self, done: Done) -> None:
        assert done.outputs["lengths"] == [len(VALUE), len(VALUE)]

    @_shown
    def test_another_step_has_no_variable(self, done: Done) -> None:
        assert done.outputs["others"] == []

    @pytest.mark.parametrize(
        "line",
        [
            "plain: ***.", "url: https://app:***@host", "broken: ***", "*** :broken", "on stderr: ***",
            "by a child: ***",
        ],
    )  # fmt: skip
    @_shown
    def test_lines_do_not_show_it(self, done: Done, line: str) -> None:
        assert line in [each.message for each in done.log]

    @_shown
    def test_base64_does_not_show_it(self, done: Done) -> None:
        (line,) = [each.message for each in done.log if each.message.startswith("base64: ")]
        assert re.fullmatch(r"base64: dXN\w{0,4}\*\*\*", line), "the user before it may show"

    @_shown
    def test_records_do_not_show_it(self, done: Done) -> None:
        assert any(each.message.endswith("logged: ***") for each in done.log)

    @_shown
    def test_nothing_of_it_is_in_the_run(self, done: Done) -> None:
        shown = repr([*done.log, *done.run.step_runs(), done.outputs])
        assert not any(part in shown for part in (VALUE, VALUE[:14], VALUE[14:]))

    @_raised
    def test_an_error_does_not_show_it(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "cannot sign in as app:***" in str(done.record.error)
        assert VALUE not in repr([done.record.error, *done.run.step_runs()])

    @_raised
    def test_a_traceback_does_not_show_it(self, done: Done) -> None:
        lines = "\n".join(line.message for line in done.run.logs())
        assert "Traceback (most recent call last)" in lines
        assert VALUE not in lines

    @_raised
    def test_hooks_do_not_get_it(self, done: Done) -> None:
        lines = self.journal(done.folder, 2)
        assert lines[0] == "raises {'number': 7}"
        assert any("cannot sign in as app:***" in line for line in lines)
        assert VALUE not in "\n".join(lines)

    @_returned
    def test_an_output_that_holds_it_is_refused(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "output 'url' contains the value of a secret" in str(done.record.error)
        assert VALUE not in repr([done.record.error, *done.run.logs()])

    @_lacking
    def test_a_missing_one_fails_its_step(self, done: Done) -> None:
        assert done.steps["lacks"].status is FAILED
        assert f"Secret {MISSING!r} is missing" in str(done.steps["lacks"].error)
        assert str(done.record.error).count("step 'lacks'") == 1

    @_lacking
    def test_a_step_beside_a_missing_one_runs(self, done: Done) -> None:
        assert done.steps["beside"].status is COMPLETED

    @_looped
    def test_items_of_a_loop_get_it(self, done: Done) -> None:
        assert done.outputs["lengths"] == [len(VALUE), 2 * len(VALUE)]
        assert {"item 1: ***", "item 2: ***"} <= {line.message for line in done.log}

    def test_what_is_missing_can_be_asked(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(
            orchestrator,
            Feature.SECRETS,
            lambda: orchestrator.run_pipeline(pipelines_secrets.lacks_secret(folder)),
        )
        self.provides("finds_missing_secrets", lambda: orchestrator.missing_secrets([NAME, MISSING]))
        missing = orchestrator.missing_secrets([NAME, MISSING])
        assert set(missing) == {MISSING}
        assert MISSING in missing[MISSING]
