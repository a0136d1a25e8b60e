"""Train two classifiers side by side on real data, keep the better one and report on it.

    python examples/train_classifier.py --on local       # without an engine
    python examples/train_classifier.py --on prefect     # your Prefect, or an embedded one when you have none
    flowyml run examples/train_classifier.py --on prefect -p trees=400

The data is scikit-learn's breast-cancer set: 569 tumours, 30 measurements each, benign or malignant.
"""

from __future__ import annotations

import argparse
from typing import Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score, roc_curve
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowyml import pipeline, report, step

Numbers = np.ndarray[Any, Any]
Model = Annotated[Any, "model"]


@step(outputs=["features", "labels"])
def load() -> tuple[Numbers, Numbers]:
    """Measurements, and 1 for a benign tumour."""
    data = load_breast_cancer()
    print(f"{len(data.target)} tumours, {data.data.shape[1]} measurements each, {data.target.mean():.0%} benign")
    return data.data, data.target


@step(outputs=["train_x", "test_x", "train_y", "test_y"])
def split(features: Numbers, labels: Numbers, test_share: float, seed: int) -> tuple[Numbers, ...]:
    """A part of the tumours is kept back for the test."""
    parts = train_test_split(features, labels, test_size=test_share, random_state=seed, stratify=labels)
    print(f"training on {len(parts[0])}, testing on {len(parts[1])}")
    return tuple(parts)


@step
def train_forest(train_x: Numbers, train_y: Numbers, trees: int, seed: int) -> Any:
    """Many decision trees that vote."""
    return RandomForestClassifier(n_estimators=trees, random_state=seed).fit(train_x, train_y)


@step
def train_logistic(train_x: Numbers, train_y: Numbers) -> Any:
    """A linear model of scaled measurements."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train_x, train_y)


@step(outputs=["model", "scores"])
def choose(forest: Any, logistic: Any, train_x: Numbers, train_y: Numbers) -> tuple[Model, dict[str, float]]:
    """The model that does better in cross-validation; the test data stays unseen."""
    models = {"forest": forest, "logistic": logistic}
    scores = {name: round(float(cross_val_score(m, train_x, train_y, cv=3).mean()), 4) for name, m in models.items()}
    best = max(scores, key=lambda name: scores[name])
    print(f"{best} wins: {scores}")
    report("model", name=best, cross_validation=scores[best], trained_on=len(train_y))
    return models[best], scores


@step
def evaluate(model: Any, test_x: Numbers, test_y: Numbers) -> dict[str, float]:
    """How the chosen model does on data that it has never seen."""
    said = model.predict(test_x)
    return {
        "accuracy": round(float(accuracy_score(test_y, said)), 4),
        "f1": round(float(f1_score(test_y, said)), 4),
        "roc_auc": round(float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])), 4),
    }


@step
def draw(model: Any, test_x: Numbers, test_y: Numbers) -> Figure:
    """How many benign tumours are found, for each share of the others that is taken for benign."""
    wrong, found, _ = roc_curve(test_y, model.predict_proba(test_x)[:, 1])
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(wrong, found)
    axes.set(xlabel="malignant, taken for benign", ylabel="benign, found")
    return figure


@step
def summarize(scores: dict[str, float], metrics: dict[str, float]) -> str:
    """One sentence for people."""
    best = max(scores, key=lambda name: scores[name])
    return f"The {best} model is right on {metrics['accuracy']:.1%} of tumours that it has never seen."


@pipeline(name="train-classifier", tags=["demo"])
def train_classifier(trees: int = 200, test_share: float = 0.25, seed: int = 7) -> dict[str, Any]:
    """Train two classifiers side by side, keep the better one."""
    features, labels = load()
    train_x, test_x, train_y, test_y = split(features, labels, test_share, seed)
    forest = train_forest(train_x, train_y, trees, seed)
    logistic = train_logistic(train_x, train_y)
    model, scores = choose(forest, logistic, train_x, train_y)
    metrics = evaluate(model, test_x, test_y)
    draw(model, test_x, test_y)
    return {"metrics": metrics, "scores": scores, "report": summarize(scores, metrics)}


def main() -> None:
    arguments = argparse.ArgumentParser(description="Train two classifiers and keep the better one.")
    arguments.add_argument("--on", default=None, help="local, prefect, or a target of yours (default: local)")
    arguments.add_argument("--trees", type=int, default=200)
    given = arguments.parse_args()

    run = train_classifier.submit({"trees": given.trees}, on=given.on)
    print(f"Run {run.run_id} on {run.orchestrator.name}, job {run.job_id}.")
    run.wait_for_completion()

    print(f"\nStatus:   {run.status} after {run.duration_seconds:.1f} s")
    if not run.status.is_successful:
        raise SystemExit(run.error)
    outputs = run.outputs  # read back from the engine
    print(f"Metrics:  {outputs['metrics']}")
    print(f"Scores:   {outputs['scores']} (cross-validation)")
    print(f"Report:   {outputs['report']}")
    if run.url:
        print(f"Look at:  {run.url}")


if __name__ == "__main__":
    main()
