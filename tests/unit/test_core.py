"""Statuses, policies, resources, errors, capabilities, names: the words that every layer shares."""

from __future__ import annotations

import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml.core import errors
from flowyml.core.capabilities import Capabilities, Feature, Level, no, partly, yes
from flowyml.core.errors import (
    DefinitionError,
    MissingSecretError,
    ParameterError,
    StepCrashedError,
    StepOutOfMemoryError,
    UnsupportedFeatureError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.names import identifier, slug


class TestExecutionStatus:
    def test_values_are_those_of_the_guide(self) -> None:
        assert [status.value for status in ExecutionStatus] == [
            "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT",
        ]  # fmt: skip

    def test_aliases(self) -> None:
        assert ExecutionStatus.SUCCEEDED is ExecutionStatus.COMPLETED
        assert ExecutionStatus.ERROR is ExecutionStatus.FAILED
        assert ExecutionStatus["SUCCEEDED"].is_successful

    def test_it_is_a_key_and_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(ExecutionStatus.FAILED)) is ExecutionStatus.FAILED
        assert {ExecutionStatus.FAILED: 1}[ExecutionStatus.ERROR] == 1


class TestRetryPolicy:
    def test_delays_grow_up_to_the_limit(self) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=6, initial_delay_seconds=10, max_delay_seconds=60)
        assert policy.delays == (10, 20, 40, 60, 60)

    @pytest.mark.parametrize(("initial", "last"), [(1, 3600), (1e300, 3600), (0, 0)])
    def test_huge_multipliers_do_not_overflow(self, initial: float, last: float) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=5, backoff_multiplier=1e300, initial_delay_seconds=initial)
        assert policy.delays[-1] == last

    @pytest.mark.parametrize(
        ("error", "wanted", "retried"),
        [
            (TimeoutError(), "Timeout", True),
            (TimeoutError(), "TimeoutError", True),
            (TimeoutError(), "builtins.TimeoutError", True),
            (ConnectionResetError(), "Connection", True),
            (ConnectionResetError(), OSError, True),
            (MemoryError(), "OOM", True),
            (StepOutOfMemoryError(), "OOM", True),
            (StepCrashedError(), "OOM", False),
            (type("OutOfMemoryError", (RuntimeError,), {})(), "OOM", True),  # a library's own
            (ValueError(), Exception, True),
            (ValueError(), "Exception", True),
            (KeyboardInterrupt(), Exception, False),
            (OSError(), "IOError", True),
            (OSError(), "socket.error", True),
            (ValueError("Timeout"), "Timeout", False),
            (KeyError(), "Timeout", False),
            (ParameterError(), ValueError, False),  # all attempts of a run have the same parameters
            (type("ParameterError", (ValueError,), {})(), ValueError, True),  # a user's own
        ],
    )
    def test_errors_are_matched_by_class(self, error: BaseException, wanted: str | type, retried: bool) -> None:
        assert OrchestratorRetryPolicy(retryable_errors=[wanted]).retries_on(error) is retried

    def test_a_missing_secret_is_retried_only_if_it_may_come(self) -> None:
        error = MissingSecretError("Secret 'a' is missing.")
        assert not OrchestratorRetryPolicy(retryable_errors=[Exception]).retries_on(error)
        error.may_come = True
        assert OrchestratorRetryPolicy().retries_on(error)

    def test_a_wrong_parameter_is_not_retried(self) -> None:
        assert not OrchestratorRetryPolicy().retries_on(ParameterError())
        assert OrchestratorRetryPolicy().retries_on(ValueError())

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_attempts", 0), ("max_attempts", True), ("max_attempts", 1.5), ("initial_delay_seconds", -1),
         ("initial_delay_seconds", "10"), ("backoff_multiplier", 0.5), ("retryable_errors", "OOM"),
         ("max_attempts", 3.0), ("initial_delay_seconds", float("inf")), ("max_delay_seconds", float("nan")),
         ("backoff_multiplier", float("inf"))],
    )  # fmt: skip
    def test_nonsense_is_named(self, name: str, value: object) -> None:
        with pytest.raises(DefinitionError, match=name):
            OrchestratorRetryPolicy(**{name: value})  # type: ignore[arg-type]  # a wrong value


class TestResources:
    @pytest.mark.parametrize(
        "wrong", [{"cpu": "two"}, {"cpu": True}, {"memory": "4 Gi"}, {"memory": [1]}, {"gpu": -1}, {"gpu": "1"}]
    )
    def test_notations(self, wrong: dict[str, object]) -> None:
        with pytest.raises(DefinitionError, match=next(iter(wrong))):
            ResourceRequirements(**wrong)  # type: ignore[arg-type]  # wrong on purpose

    def test_unknown_kinds_of_the_old_dict(self) -> None:
        with (
            pytest.warns(DeprecationWarning, match=r"2\.0"),
            pytest.raises(DefinitionError, match=r"resources has no 'disk'"),
        ):
            ResourceRequirements.coerce({"disk": "1"})


class TestErrors:
    def test_every_error_is_ours_and_survives_pickling(self) -> None:
        classes = [item for item in vars(errors).values() if inspect.isclass(item)]
        assert len(classes) > 20
        for cls in classes:
            assert issubclass(cls, errors.FlowymlError)
            error = cls("what, where, what now")
            error.step = "train"
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again), again.step) == (cls, "what, where, what now", "train")

    @pytest.mark.parametrize(
        ("ours", "builtin"),
        [("MissingExtraError", ImportError), ("RunNotFoundError", LookupError), ("WaitTimeoutError", TimeoutError),
         ("EngineUnreachableError", ConnectionError), ("AuthenticationError", PermissionError)],
    )  # fmt: skip
    def test_callers_may_expect_the_builtin(self, ours: str, builtin: type) -> None:
        assert issubclass(getattr(errors, ours), builtin)


class TestCapabilities:
    table = Capabilities(
        "toy", {Feature.LOGS: yes, Feature.HOOKS: no("nothing calls them"), Feature.CANCEL: partly("slowly")}
    )

    def test_all_lacks_come_in_one_error(self) -> None:
        with pytest.raises(UnsupportedFeatureError) as seen:
            self.table.require({
                Feature.LOGS: "me", Feature.HOOKS: "pipeline 'p' has hooks", Feature.CANCEL: "me",
                Feature.RESOURCES_GPU: "step 'train' asks for gpu=1",
            })  # fmt: skip
        assert len(seen.value.lacks) == 2
        assert "pipeline 'p' has hooks: lifecycle hooks; 'toy' cannot: nothing calls them" in str(seen.value)
        assert "step 'train' asks for gpu=1" in str(seen.value)

    def test_what_is_not_said_counts_as_no(self) -> None:
        assert self.table[Feature.PARALLEL_STEPS].level is Level.NO


class TestNames:
    @given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
    def test_two_names_never_become_one(self, one: str, two: str) -> None:
        if one != two:
            assert slug(one) != slug(two)
            assert identifier(one) != identifier(two)

    @given(st.text(min_size=1, max_size=300))
    def test_slugs_and_identifiers_are_what_they_say(self, name: str) -> None:
        assert len(slug(name)) <= 60
        assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert identifier(name).isidentifier()
        assert identifier(name).isascii()

    @pytest.mark.parametrize("name", ["a-b0ce1989", "x", "1", "_", "-", "None", "load_b0ce1989"])
    def test_odd_ones(self, name: str) -> None:
        assert slug(name) == slug(name)
        assert identifier(name).isidentifier()
        assert identifier(name) not in ("None", "_")
