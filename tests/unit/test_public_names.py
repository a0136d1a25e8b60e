"""The public modules, and the names in them. A name that comes or goes here is a decision: 1.0 keeps them."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from flowyml.core import errors

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "reference"

PUBLIC = {
    "flowyml": [
        "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "Cache", "Context", "CurrentRun", "If",
        "Pipeline",
        "__version__", "all_of", "any_of", "cleanup", "context", "current_run", "either", "elif_", "for_each",
        "get_logger", "is_in", "not_", "otherwise", "pipeline", "report", "step", "when",
    ],
    "flowyml.artifacts": [
        "Store", "artifact_key", "default_url", "is_reference", "open_store", "pack", "run_place", "unpack",
    ],
    "flowyml.core.capabilities": ["Capabilities", "Feature", "Support", "no", "partly", "yes"],
    "flowyml.core.dates": ["DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "RunDates"],
    "flowyml.core.errors": [
        "FlowymlError", "DefinitionError", "CycleError", "UnknownOptionError", "OverrideError", "ParameterError",
        "ScheduleError", "ConfigurationError", "PlanError", "DeploymentError", "OwnershipError",
        "UnsupportedFeatureError", "NoFileFormatError", "OrchestratorNotFoundError", "MissingExtraError", "PluginError",
        "RunNotFoundError", "ScheduleNotFoundError", "RetryRefusedError", "WaitTimeoutError", "EngineError",
        "EngineUnreachableError", "ServerTroubleError", "AuthenticationError", "UnknownStateError", "ArtifactError",
        "NotPicklableError", "MissingLibraryError", "OutputNotKeptError", "StepError", "StepFailedError",
        "MissingSecretError",
        "OutputError", "StepTimeoutError", "StepCancelledError", "StepCrashedError", "StepOutOfMemoryError",
    ],
    "flowyml.core.execution_status": ["ExecutionStatus"],
    "flowyml.core.hooks": ["PipelineHook"],
    "flowyml.core.observability": [
        "ConsoleMetricsCollector", "MetricsCollector", "PrometheusMetricsCollector", "get_metrics_collector",
        "set_metrics_collector",
    ],
    "flowyml.core.resources": ["ResourceRequirements", "amount"],
    "flowyml.core.retry_policy": ["OrchestratorRetryPolicy", "error_names"],
    "flowyml.core.runs": [
        "Artifact", "Artifacts", "LogLine", "Outputs", "PipelineResult", "Run", "Runs", "StepResult", "StepRun",
        "StepRuns", "find_item", "folded", "labelled", "opened",
    ],
    "flowyml.core.schedule": ["Schedule", "ScheduleInfo"],
    "flowyml.core.submission_result": ["RunOperations", "SubmissionResult"],
    "flowyml.graph": ["mermaid", "svg", "terminal"],
    "flowyml.orchestrators": ["LocalOrchestrator", "Orchestrator", "RemoteOrchestrator"],
    "flowyml.orchestrators.base": [
        "Deployment", "Health", "Orchestrator", "RunnablePipeline", "SignIn", "check_same_run", "claim_new", "located",
        "of_step",
    ],
    "flowyml.orchestrators.bundled": ["BundledPipeline"],
    "flowyml.orchestrators.local": ["LocalOrchestrator"],
    "flowyml.orchestrators.registry": [
        "GROUP", "Factory", "declared", "default", "load", "missing", "not_found", "register", "require_engine",
        "worker_packages",
    ],
    "flowyml.orchestrators.run_outputs": ["read_outputs"],
    "flowyml.orchestrators.targets": ["construct", "resolve", "target", "targets"],
    "flowyml.plan.bundle": ["Bundle", "build"],
    "flowyml.plan.model": [
        "FLAT_SCHEMA_VERSION", "RUN_IF", "SCHEMA_VERSION", "Caching", "Constant", "FromEither", "FromItem",
        "FromParameter",
        "FromStep", "Input", "Parameter", "PipelineOutput", "Plan", "Source", "Step",
    ],
    "flowyml.testing": [
        "ArtifactConformance", "BranchConformance", "CachingConformance", "CleanupConformance",
        "ControlFlowConformance", "DeploymentConformance", "ExecutionGroupConformance", "FailureConformance",
        "FanOutConformance", "LifeConformance", "OrchestratorConformance", "RandomFlowConformance",
        "RetryConformance", "RunConformance", "RunIfConformance", "ScheduleConformance", "SecretConformance",
        "SubPipelineConformance",
    ],
    "flowyml_airflow": ["AirflowOrchestrator", "airflow_operator", "external_dag", "imported", "run_dag", "xcom"],
    "flowyml_airflow.orchestrator": ["AirflowOrchestrator"],
    "flowyml_kubeflow": ["KubeflowLocalOrchestrator", "KubeflowOrchestrator"],
    "flowyml_kubeflow.local.orchestrator": ["KubeflowLocalOrchestrator"],
    "flowyml_kubeflow.orchestrator": ["KubeflowOrchestrator"],
    "flowyml_prefect": ["PrefectOrchestrator"],
    "flowyml_prefect.orchestrator": ["PrefectOrchestrator"],
}  # fmt: skip
# Of these modules, only what "Write an adapter" has adapters import.
FOR_ADAPTERS = {
    "flowyml.core.logs": ["parts"],
    "flowyml.core.origin": ["Origin"],
    "flowyml.plan.names": ["slug"],
    "flowyml.runtime.processes": ["StepProcesses"],
    "flowyml.runtime.step_errors": ["of_several", "of_step"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_names_of_a_public_module(module: str) -> None:
    pytest.importorskip("kfp" if "kubeflow" in module else "flowyml")
    found = import_module(module)
    assert found.__all__ == PUBLIC[module]
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_what_the_reference_shows_is_public() -> None:
    shown = [name for page in DOCS.glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)]
    assert len(shown) > 30
    for name in shown:
        module, _, attribute = name.rpartition(".")
        assert name in PUBLIC or attribute in PUBLIC.get(module, ()), name


@pytest.mark.parametrize("module", FOR_ADAPTERS)
def test_what_adapters_are_to_import_is_there(module: str) -> None:
    assert {*FOR_ADAPTERS[module]} <= {*import_module(module).__all__}


def test_the_guide_for_adapters_imports_what_is_public() -> None:
    kept = {**PUBLIC, **FOR_ADAPTERS}
    named = re.findall(r"`(flowyml\.\w+\.\w+)\.(\w+)", (DOCS / "write-an-adapter.md").read_text())
    for file in (ROOT / "tests/adapters/folder").glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        named += [(str(node.module), alias.name) for node in imports for alias in node.names]
    named = [(module, name) for module, name in named if module.partition(".")[0] == "flowyml"]
    assert len(named) > 20
    assert [(module, name) for module, name in named if name not in kept.get(module, ())] == []


def test_the_tree_of_errors_in_the_docstring_is_that_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error)\b(?: \(([\w, ]+)\))?", errors.__doc__, re.MULTILINE)
    above: list[str] = []
    for lines, name, builtins in drawn:
        depth = len(lines) // 4
        parent, above[depth:] = (above[depth - 1] if depth else "Exception"), [name]
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [parent, *filter(None, builtins.split(", "))], name
    assert [name for _, name, _ in drawn] == errors.__all__
