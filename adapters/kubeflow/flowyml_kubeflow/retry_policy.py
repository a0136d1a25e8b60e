"""Who tries a failed step again: KFP, in a new pod, or the launcher inside the pod. It travels in the bundle too."""

from __future__ import annotations

from flowyml.plan.model import Step

__all__ = ["delays_in_pod", "is_retried_by_kfp"]


def is_retried_by_kfp(step: Step) -> bool:
    """Whether KFP can keep the step's retry policy.

    It tries again after any error, multiplies delays by whole numbers only, and caps no delay: what it calls
    ``backoffMaxDuration`` ends all retries that long after the first attempt began. Source: Argo, operator.go,
    ``processNodeRetries``; KFP, argocompiler/container.go.

    >>> from flowyml.core.retry_policy import OrchestratorRetryPolicy as Policy
    >>> def kfp(**policy): return is_retried_by_kfp(Step(name="x", function="m:f", retry=Policy(**policy)))
    >>> kfp(), kfp(backoff_multiplier=1.5), kfp(initial_delay_seconds=40, max_delay_seconds=60)
    (True, False, False)
    """
    policy = step.retry
    if policy is None or policy.max_attempts < 2 or policy.retryable_errors is not None:
        return False
    multiplier = policy.backoff_multiplier
    if multiplier != int(multiplier):
        return False
    try:
        last = policy.initial_delay_seconds * multiplier ** (policy.max_attempts - 2)
    except OverflowError:
        return False
    return last <= policy.max_delay_seconds


def delays_in_pod(step: Step, *, all_of_them: bool = False) -> tuple[float, ...]:
    """The seconds to wait before each retry that happens inside the pod."""
    return () if step.retry is None or (is_retried_by_kfp(step) and not all_of_them) else tuple(step.retry.delays)
