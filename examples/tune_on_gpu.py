"""Ask for hardware, once for every engine: requests of a step, and options that only one engine knows.

    python examples/tune_on_gpu.py                                   # here, where requests are not enforced
    flowyml compile examples/tune_on_gpu.py --to airflow -o dags/     # a pod with a GPU under the KubernetesExecutor
    flowyml compile examples/tune_on_gpu.py --to kubeflow -o tune_on_gpu.yaml

Each rate is tried in a step of its own, side by side. The model is a line through points, so that it needs no GPU.
"""

from __future__ import annotations

from flowyml import pipeline, step
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy

Points = list[tuple[float, float]]
Fit = dict[str, float]

RATES = (0.001, 0.003, 0.01)


@step(resources=ResourceRequirements(cpu="500m", memory="1Gi"))
def points(count: int) -> Points:
    """On the line y = 3 x + 1."""
    return [(x / count * 10, 3 * x / count * 10 + 1) for x in range(count)]


@step(
    outputs=["fit"],
    resources=ResourceRequirements(cpu="2", memory="8Gi", gpu=1, gpu_type="nvidia-tesla-t4"),
    retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=30, retryable_errors=["OOM"]),
    timeout=3600,
    tags=["gpu"],
    airflow={"pool": "gpus", "priority_weight": 10},
    kubeflow={
        "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
)
def tune(points: Points, rate: float, rounds: int) -> Fit:
    """Gradient descent; what is left of the error tells how well it went."""
    slope = offset = 0.0
    for _ in range(rounds):
        errors = [(slope * x + offset - y, x) for x, y in points]
        slope -= rate * 2 * sum(error * x for error, x in errors) / len(errors)
        offset -= rate * 2 * sum(error for error, _ in errors) / len(errors)
    left = sum((slope * x + offset - y) ** 2 for x, y in points) / len(points)
    print(f"rate {rate}: y = {slope:.3f} x + {offset:.3f}, error {left:.4f}")
    return {"rate": rate, "slope": slope, "offset": offset, "error": left}


@step
def best(**fits: Fit) -> Fit:
    """The fit that is nearest to the points."""
    return min(fits.values(), key=lambda fit: fit["error"])


@pipeline(
    name="tune-on-gpu",
    tags=["tuning"],
    airflow={"owner": "ml-team", "max_active_runs": 1},
    kubeflow={"image": "python:3.12-slim"},
)
def tune_on_gpu(count: int = 100, rounds: int = 200) -> dict[str, Fit]:
    """Try learning rates side by side, keep the best fit."""
    data = points(count)
    fits = {f"rate_{number}": tune(data, rate, rounds) for number, rate in enumerate(RATES)}
    return {"best": best(**fits)}


if __name__ == "__main__":
    print(tune_on_gpu.run()["best"])
