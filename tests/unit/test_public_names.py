"""The public API: modules, and the names in them. A name that comes or goes here is a decision: 1.0 keeps them.

The reference in the docs shows these names and no others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowyml.core import errors
from flowyml.core.capabilities import Feature

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

PUBLIC = {
    "flowyml": [
        "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "Cache", "Context", "CurrentRun", "If",
        "OrchestratorRetryPolicy", "Pipeline", "Schedule", "__version__", "all_of", "any_of",
        "cleanup", "context", "current_run", "either", "elif_", "for_each", "gather", "get_logger", "is_in", "not_",
        "otherwise", "pipeline", "report", "step", "when",
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
        "ConsoleMetricsCollector", "MetricsCollector", "OtlpMetricsCollector", "PrometheusMetricsCollector",
        "get_metrics_collector", "set_metrics_collector",
    ],
    "flowyml.core.resources": ["ResourceRequirements", "amount"],
    "flowyml.core.retry_policy": ["OrchestratorRetryPolicy", "error_names"],
    "flowyml.core.runs": [
        "Artifact", "Artifacts", "LogLine", "Outputs", "PipelineResult", "Run", "Runs", "StepOutputs", "StepResult",
        "StepRun", "StepRuns", "find_item", "folded", "opened",
    ],
    "flowyml.core.schedule": ["Schedule", "ScheduleInfo"],
    "flowyml.core.submission_result": ["RunOperations", "SubmissionResult"],
    "flowyml.graph": ["mermaid", "svg", "terminal"],
    "flowyml.migration.airflow.model": [
        "OF_CLASS", "Argument", "AssetRef", "DagModel", "DagWarning", "FileModel", "FunctionModel", "GroupModel",
        "Mapping",
        "Place", "Reference", "Symbolic", "TaskModel", "Value", "ValueEdge", "values_in",
    ],
    "flowyml.orchestrators": ["Auth", "LocalOrchestrator", "Orchestrator", "RemoteOrchestrator", "Tls"],
    "flowyml.orchestrators.base": [
        "Health", "Orchestrator", "RunnablePipeline", "SignIn", "about_step", "located",
    ],
    "flowyml.orchestrators.bundled": ["BundledPipeline"],
    "flowyml.orchestrators.local": ["LocalOrchestrator"],
    "flowyml.orchestrators.registry": [
        "GROUP", "Factory", "declared", "default", "load", "missing", "not_found", "register", "require_engine",
        "worker_packages",
    ],
    "flowyml.orchestrators.targets": ["construct", "resolve", "target", "targets"],
    "flowyml.plan.bundle": ["Bundle", "build"],
    "flowyml.plan.model": [
        "FLAT_SCHEMA_VERSION", "RUN_IF", "SCHEMA_VERSION", "Caching", "Constant", "FromEither", "FromItem",
        "FromParameter",
        "FromStep", "Input", "Parameter", "PipelineOutput", "Plan", "Source", "Step",
    ],
    "flowyml.steps": [
        "bash", "copy_files", "docker_run", "email", "http", "move_files", "sql", "wait_for_file", "wait_for_http",
    ],
    "flowyml.testing": [
        "ArtifactConformance", "BranchConformance", "CachingConformance", "CleanupConformance",
        "ControlFlowConformance", "DeploymentConformance", "ExecutionGroupConformance", "FailureConformance",
        "FanOutConformance", "FiringConformance", "LifeConformance", "OrchestratorConformance", "RandomFlowConformance",
        "RetryConformance", "RunConformance", "RunIfConformance", "ScheduleConformance", "SecretConformance",
        "SubPipelineConformance",
    ],
    "flowyml_airflow": ["AirflowOrchestrator", "airflow_operator", "external_dag", "imported", "run_dag", "xcom"],
    "flowyml_airflow.orchestrator": ["AirflowOrchestrator"],
    "flowyml_kubeflow": ["KubeflowLocalOrchestrator", "KubeflowOrchestrator", "token_of"],
    "flowyml_kubeflow.local.orchestrator": ["KubeflowLocalOrchestrator"],
    "flowyml_kubeflow.orchestrator": ["KubeflowOrchestrator"],
    "flowyml_prefect": ["PrefectOrchestrator"],
    "flowyml_prefect.orchestrator": ["PrefectOrchestrator"],
}  # fmt: skip
# Of these modules, only the names here.
IN_PART = {
    "flowyml.artifacts.formats": ["Format"],
    "flowyml.migration.airflow.reader.reading": ["read_file"],
    "flowyml_airflow.compiler": ["CompiledDag", "compile_dag"],
    # For adapters, of this repository and of others.
    "flowyml.artifacts.listing": ["artifacts_of"],
    "flowyml.core.item_names": ["labelled"],
    "flowyml.orchestrators.run_outputs": ["read_outputs"],
    "flowyml.core.logs": ["level_of", "parts"],
    "flowyml.core.pruning": ["Bounds", "Prunable", "Pruned"],
    "flowyml.core.origin": ["Origin"],
    "flowyml.orchestrators.deployer": ["Deployer", "Deployment"],
    "flowyml.orchestrators.handover": ["ForeignSchedule", "Handover", "OldSchedule"],
    "flowyml.orchestrators.http": ["ConflictError", "HttpClient", "NotFoundError", "RefusedError", "paged"],
    "flowyml.orchestrators.new_code": ["EndedRun"],
    "flowyml.orchestrators.log_following": ["Poll", "log_lines"],
    "flowyml.orchestrators.options": ["Check", "check_options"],
    "flowyml.orchestrators.ownership": ["check_replaceable"],
    "flowyml.orchestrators.probe": ["Page", "Site"],
    "flowyml.orchestrators.reader": ["RunReader"],
    "flowyml.orchestrators.scheduler": ["Scheduler"],
    "flowyml.orchestrators.submission": ["check_same_run", "new_run_id", "submit_once"],
    "flowyml.orchestrators.workflows": ["Workflow"],
    "flowyml.plan.differences": ["bundle_difference", "difference"],
    "flowyml.plan.groups": ["Branch", "Cleanup", "ExecutionGroup", "Groups", "Loop", "Section"],
    "flowyml.plan.names": ["slug"],
    "flowyml.plan.parameters": ["days_of"],
    "flowyml.runtime.decider": [
        "OK",
        "Decider",
        "End",
        "Evaluator",
        "Facts",
        "Gathered",
        "Index",
        "Opened",
        "Outcome",
        "is_plain",
        "listed",
        "mapped",
    ],
    "flowyml.runtime.due": ["due", "run_due"],
    "flowyml.runtime.execution": ["AttemptOutputs"],
    "flowyml.runtime.packed_decisions": ["PackedEvaluator"],
    "flowyml.runtime.processes": ["StepProcesses"],
    "flowyml.runtime.step_errors": ["of_several", "of_step"],
    "flowyml.runtime.step_runner": ["StepEvent", "run_attempts", "run_decided"],
}
KEPT = {**PUBLIC, **IN_PART}


def test_the_names_of_public_modules() -> None:
    pytest.importorskip("kfp")
    for module, names in PUBLIC.items():
        found = import_module(module)
        assert (module, found.__all__) == (module, names)
        assert [name for name in names if not hasattr(found, name)] == []
    for module, names in IN_PART.items():
        assert {*names} <= {*import_module(module).__all__}, module


def test_the_reference_shows_what_is_public() -> None:
    pytest.importorskip("kfp")
    shown: dict[str, list[object]] = {}
    for module, name in _shown_in_the_reference():
        assert name in KEPT.get(module, ()), f"{module}.{name}"
        shown.setdefault(name, []).append(getattr(import_module(module), name))
    missing = [
        f"{module}.{name}"
        for module, names in KEPT.items()
        for name in names
        if not any(getattr(import_module(module), name) is each for each in shown.get(name, ()))
    ]
    assert missing == ["flowyml.__version__"]


def _shown_in_the_reference() -> Iterator[tuple[str, str]]:
    """Pairs of module and name; a whole module shows each of its names."""
    for page in REFERENCE.glob("*.md"):
        for shown in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            module, _, name = shown.rpartition(".")
            yield from ((shown, each) for each in PUBLIC[shown]) if shown in PUBLIC else [(module, name)]


def test_what_the_docs_import_and_name_is_public() -> None:
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    named: list[tuple[str, str]] = []
    for page in pages:
        text = page.read_text()
        for module, names in re.findall(r"^ *from (flowyml[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
            named += [(module, name.strip()) for name in names.split(",")]
        if page.parent.name != "decisions" and page.name not in (
            "architecture.md",
            "migration.md",
        ):  # about the code, and about 0.x
            found = re.findall(r"`(flowyml\w*(?:\.\w+)+)\.(\w+)", text)
            named += [(module, name) for module, name in found if f"{module}.{name}" not in KEPT]
    named = [(module, name) for module, name in named if _is_there(module)]  # examples import what 0.x had, too
    assert len(named) > 60
    assert [(module, name) for module, name in named if name not in KEPT.get(module, ())] == []


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_the_guide_for_adapters_imports_what_is_public() -> None:
    named: list[tuple[str, str]] = []
    for file in (ROOT / "tests/adapters/make").glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        named += [(str(node.module), alias.name) for node in imports for alias in node.names]
    named = [(module, name) for module, name in named if module.partition(".")[0] == "flowyml"]
    assert len(named) > 20
    assert [(module, name) for module, name in named if name not in KEPT.get(module, ())] == []


def test_the_types_in_what_an_adapter_overrides_are_public() -> None:
    tree = ast.parse((ROOT / "flowyml/orchestrators/base.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {alias.name: str(node.module) for node in imports for alias in node.names}
    (interface,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Orchestrator"]
    methods = [node for node in interface.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    arguments = [each.annotation for method in methods for each in (*method.args.args, *method.args.kwonlyargs)]
    types = filter(None, [*arguments, *(method.returns for method in methods)])
    names = {node.id for each in types for node in ast.walk(each) if isinstance(node, ast.Name)}
    ours = sorted(name for name in names if imported.get(name, "").startswith("flowyml"))
    assert len(ours) > 10
    assert [name for name in ours if not any(name in kept for kept in KEPT.values())] == []


def test_the_guide_for_adapters_names_each_feature() -> None:
    pages = [REFERENCE / "write-an-adapter.md", ROOT / "tests/adapters/make/flowyml_make.py"]
    text = "".join(page.read_text() for page in pages)
    assert [feature.name for feature in Feature if not re.search(rf"\b{feature.name}\b", text)] == []


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
