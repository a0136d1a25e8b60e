"""Arguments for tasks of all kinds: retries, callbacks, and the resources of a pod."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.layout import Group, Pair, Part, text_literal, value
from flowyml_airflow.options import callbacks
from flowyml_airflow.schedule import delta

__all__ = ["asks_for_pod", "called_back", "grows", "pod", "retries", "tries_again"]


def called_back(options: Mapping[str, Any], names: Iterable[str], before: list[Part]) -> Iterator[Part]:
    """Yield the arguments for callbacks. FlowyML's own, if any, come first."""
    for name in names:
        calls = [*before, *(_callback(*item) for item in callbacks(options.get(name)))]
        if calls:
            yield Pair(f"{name}=", calls[0] if len(calls) == 1 else Group("[", calls, "]"))


def _callback(place: str, arguments: Mapping[str, Any] | None) -> Part:
    extra = [value(dict(arguments))] if arguments is not None else []
    return Group("callback(", [text_literal(place), *extra], ")")


def retries(policy: OrchestratorRetryPolicy | None) -> Iterator[Part]:
    """Yield the arguments for retries, with Airflow's own backoff.

    Airflow waits up to twice the computed time, so that tasks do not retry all at once.
    """
    if policy is None or not tries_again(policy):
        return
    yield f"retries={policy.max_attempts - 1}"
    yield f"retry_delay={delta(policy.initial_delay_seconds)}"
    if grows(policy):
        yield f"retry_exponential_backoff=backoff({float(policy.backoff_multiplier)!r})"
        yield f"max_retry_delay={delta(policy.max_delay_seconds)}"


def tries_again(policy: OrchestratorRetryPolicy | None) -> bool:
    return policy is not None and policy.max_attempts > 1


def grows(policy: OrchestratorRetryPolicy | None) -> bool:
    """Return whether the delay between attempts grows."""
    if policy is None or policy.max_attempts <= 2:
        return False
    return policy.backoff_multiplier != 1 and bool(policy.initial_delay_seconds)


def asks_for_pod(resources: ResourceRequirements | None) -> bool:
    return resources is not None and bool(resources.cpu or resources.memory or resources.gpu)


def pod(resources: ResourceRequirements) -> Part:
    """Return the resources of a pod: requests for all, and some limits.

    Limits are for memory, and for devices, which Kubernetes never shares.
    """
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    requests: list[Part] = [f"{name}={text_literal(amount)}" for name, amount in amounts.items() if amount]
    limits = {"memory": resources.memory} if resources.memory else {}
    if resources.gpu:
        limits[resources.gpu_resource] = str(resources.gpu)
    if limits:
        requests.append(Pair("limits=", value(limits)))
    if resources.gpu_labels:
        requests.append(Pair("selector=", value(resources.gpu_labels)))
    return Group("pod(", requests, ")")
