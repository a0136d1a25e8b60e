"""The Argo workflow that KFP's API server makes of a pipeline.

Source: KFP, ``v2/compiler/argocompiler``: ``dag.go``, ``container.go``, ``argo.go``; and the workflows that a real
KFP 2.17.0 made, beside which a test puts these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.engines.kubeflow_releases import Release
from tests.engines.kubeflow_replaced import refused_by_argo

__all__ = ["About", "compiled", "go_json"]

Json = dict[str, Any]

_LAUNCHER = "/kfp-launcher/launch"
_IMAGE = "ghcr.io/kubeflow/kfp:2.17.0"
_SERVERS = [
    "--http_proxy", "", "--https_proxy", "", "--no_proxy", "",
    "--ml_pipeline_server_address", "ml-pipeline.kubeflow.svc.cluster.local", "--ml_pipeline_server_port", "8887",
    "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080",
    "--publish_logs", "true",
]  # fmt: skip
_SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}
_RESTRICTED = {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False, **_SECCOMP}
_POD_FACTS = [
    {"name": f"KFP_POD_{name.upper()}", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{name}"}}}
    for name in ("name", "uid")
]
_SCRATCH = {
    "kfp-launcher": "/kfp-launcher", "gcs-scratch": "/gcs", "s3-scratch": "/s3", "minio-scratch": "/minio",
    "dot-local-scratch": "/.local", "dot-cache-scratch": "/.cache", "dot-config-scratch": "/.config",
}  # fmt: skip
_RETRIES = {
    "retry-max-count": "maxRetryCount", "retry-backoff-duration": "backoffDuration",
    "retry-backoff-factor": "backoffFactor", "retry-backoff-max-duration": "backoffMaxDuration",
}  # fmt: skip


@dataclass(frozen=True)
class About:
    """A run: its id, its shown name, the name of its workflow, its parameters, and when it was created, in Go's words.

    A recurring run's pipeline is compiled without a shown name.
    """

    run_id: str
    shown_name: str
    workflow: str
    parameters: Json
    created: str


def compiled(pipeline: Json, platform: Json, about: About, release: Release) -> Json:
    """The manifest of the workflow, without a status. Raises ``ValueError`` for what Argo refuses."""
    compiler = _Compiler(_with_implicit_dependencies(pipeline), platform, about)
    compiler.dag("root", compiler.pipeline["root"])
    defaults, ttl = release.template_defaults, int(release.ttl.total_seconds())
    if long := next((each for each in compiler.templates if len(each) > 128), None):
        raise ValueError(
            f"spec.templates[{[*compiler.templates].index(long)}].name: '{long}' is invalid: must be no more than 128 "
            f"characters"
        )
    if variable := refused_by_argo(go_json(about.parameters)):
        raise ValueError(f"templates.entrypoint.tasks.root-driver: failed to resolve {{{{{variable}}}}}")
    labels = {"pipeline/runid": about.run_id, "pipelines.kubeflow.org/v2_component": "true"}
    spec = {
        "templates": [*compiler.templates.values()],
        "entrypoint": "entrypoint",
        "arguments": {"parameters": [{"name": name, "value": value} for name, value in compiler.arguments.items()]},
        "serviceAccountName": "pipeline-runner",
        **({"ttlStrategy": {f"secondsAfter{end}": ttl for end in ("Completion", "Success", "Failure")}}
           if defaults else {}),
        "securityContext": {"runAsNonRoot": True, **_SECCOMP},
        "podMetadata": {"annotations": {"pipelines.kubeflow.org/v2_component": "true"}, "labels": labels},
        **({"templateDefaults": {"inputs": {}, "outputs": {}, "metadata": {}, **defaults}} if defaults else {}),
    }  # fmt: skip
    return {"metadata": _metadata(about), "spec": spec}


def go_json(value: Any) -> str:
    """JSON as Go writes it."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _with_implicit_dependencies(pipeline: Json) -> Json:
    """The same, where each task depends on those whose outputs it takes. Source: ``addImplicitDependencies``."""
    pipeline = json.loads(json.dumps(pipeline))
    for component in (pipeline["root"], *pipeline["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            inputs = task.get("inputs", {})
            for source in (*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()):
                origin = source.get("taskOutputParameter") or source.get("taskOutputArtifact") or {}
                producer = origin.get("producerTask")
                if producer and producer not in task.setdefault("dependentTasks", []):
                    task["dependentTasks"].append(producer)
    return dict(pipeline)


class _Compiler:
    """Templates and arguments of one workflow, as they come up."""

    def __init__(self, pipeline: Json, platform: Json, about: About) -> None:
        self.pipeline = pipeline
        self.executors: Json = pipeline.get("deploymentSpec", {}).get("executors", {})
        config = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self.kubernetes: Json = config.get("executors", {})
        self.about = about
        self.templates: dict[str, Json] = {}
        self.arguments: dict[str, str] = {}

    def dag(self, name: str, component: Json) -> str:
        """The template of a DAG, after all in it."""
        self._argument(f"components-{name}", component)
        tasks, exits = dict(component["dag"]["tasks"]), dict[str, str]()
        for task_name in sorted(tasks):
            if _ends_a_dag(tasks[task_name]):
                task = tasks.pop(task_name)
                hook = f"exit-hook-{name}-{task_name}"
                inner = [{key: value for key, value in each.items() if key != "depends" or each["name"] == task_name}
                         for each in self._task(task_name, task)]  # fmt: skip
                self._template(hook, ["parent-dag-id"], {"dag": {"tasks": inner}})
                exits.update(dict.fromkeys(task["dependentTasks"], hook))
        made = [each for task_name in sorted(tasks) for each in self._task(task_name, tasks[task_name])]
        for each in made:
            if hook := exits.get(each["name"], ""):
                given = _given({"parent-dag-id": "{{inputs.parameters.parent-dag-id}}"})
                each["hooks"] = {"exit": {"template": hook, "arguments": given}}
        self._template(name, ["parent-dag-id"], {"dag": {"tasks": made}})
        if name == "root":
            self._entrypoint()
        return name

    def _entrypoint(self) -> None:
        config = go_json({"parameterValues": self.about.parameters})
        given = {"component": _workflow("components-root"), "runtime-config": config, "driver-type": "ROOT_DAG"}
        driver = self._dag_driver("root-driver", given)
        root = {"parent-dag-id": _output("root-driver", "execution-id"), "condition": ""}
        tasks = [driver, {"name": "root", "template": "root", "arguments": _given(root), **_after("root-driver")}]
        self._template("entrypoint", [], {"dag": {"tasks": tasks}})

    def _task(self, name: str, task: Json, *, item: bool = False, own: str = "") -> list[Json]:
        """The tasks of Argo that a task of KFP becomes; as an ``item`` of a loop; the loop's name is ``own``."""
        ref = task["componentRef"]["name"]
        component = self.pipeline["components"][ref]
        before = [] if item or _ends_a_dag(task) else task.get("dependentTasks", [])
        if "parameterIterator" in task and not item:
            return [self._loop(name, task, before)]
        if "dag" in component:
            self.dag(ref, component)
            given = {
                "component": _workflow(f"components-{ref}"), "parent-dag-id": _input("parent-dag-id"),
                "task": _sorted_json(task), "task-name": own or name,
                **({"iteration-index": _input("iteration-index")} if item else {}),
            }  # fmt: skip
            inner = {
                "parent-dag-id": _output(f"{name}-driver", "execution-id"),
                "condition": _output(f"{name}-driver", "condition"),
            }
            return [
                {**self._dag_driver(f"{name}-driver", given), **_after(*before)},
                {"name": name, "template": ref, "arguments": _given(inner), **_after(f"{name}-driver")},
            ]
        return self._container(name, task, ref, before)

    def _loop(self, name: str, task: Json, before: list[str]) -> Json:
        ref = task["componentRef"]["name"]
        inner = self._task("iteration-item", task, item=True, own=name)
        self._template(f"{ref}-iteration", ["parent-dag-id", "iteration-index"], {"dag": {"tasks": inner}})
        given = {
            "component": _workflow(f"components-{ref}"), "parent-dag-id": _input("parent-dag-id"),
            "task": _sorted_json(task), "task-name": name,
        }  # fmt: skip
        each = {"parent-dag-id": _output("iteration-driver", "execution-id"), "iteration-index": "{{item}}"}
        tasks = [
            self._dag_driver("iteration-driver", given),
            {
                "name": "iteration-iterations", "template": f"{ref}-iteration", "arguments": _given(each),
                "withSequence": {"count": _output("iteration-driver", "iteration-count")}, **_after("iteration-driver"),
            },
        ]  # fmt: skip
        limit = task.get("iteratorPolicy", {}).get("parallelismLimit")
        more = {"parallelism": int(limit)} if limit else {}
        iterator = f"{ref}-{name}-iterator"
        self._template(iterator, ["parent-dag-id"], {"dag": {"tasks": tasks}, **more})
        arguments = _given({"parent-dag-id": _input("parent-dag-id")})
        return {"name": name, "template": iterator, "arguments": arguments, **_after(*before)}

    def _container(self, name: str, task: Json, ref: str, before: list[str]) -> list[Json]:
        component = self.pipeline["components"][ref]
        label = component["executorLabel"]
        container, kubernetes = self.executors[label]["container"], self.kubernetes.get(label)
        digest = hashlib.sha256(_sorted_json([component, container]).encode("utf-8", "replace")).hexdigest()
        self._argument(f"components-{digest}", component)
        self._argument(f"implementations-{digest}", container)
        given = {
            "component": _workflow(f"components-{digest}"), "task": _sorted_json(task),
            "container": _workflow(f"implementations-{digest}"), "task-name": name,
            "parent-dag-id": _input("parent-dag-id"),
        }  # fmt: skip
        if kubernetes is not None:
            self._argument(f"kubernetes-{ref}", kubernetes)
            given["kubernetes-config"] = _workflow(f"kubernetes-{ref}")
        driver = {"name": f"{name}-driver", "template": self._container_driver(), "arguments": _given(given)}
        inner = {
            "pod-spec-patch": _output(f"{name}-driver", "pod-spec-patch"),
            "cached-decision": _output(f"{name}-driver", "cached-decision"),
        }
        policy = task.get("retryPolicy")
        if policy is not None:
            inner |= {to: str(policy.get(name, 0)).removesuffix("s") for to, name in _RETRIES.items()}
        executor = {
            "name": name, "template": self._executor(policy is not None, (kubernetes or {}).get("podMetadata")),
            "arguments": _given(inner, {"cached-decision": "false"}), **_after(f"{name}-driver"),
        }  # fmt: skip
        return [{**driver, **_after(*before)}, executor]

    def _executor(self, retries: bool, metadata: Json | None) -> str:
        """The template around the pod of a task. The parameters of a pod's metadata are left out."""
        counts = [str(len((metadata or {}).get(of, {}))) for of in ("annotations", "labels")]
        prefix = f"metadata-{'-'.join(counts)}-" if metadata is not None else ""
        prefix += "retry-" if retries else ""
        name, impl = f"{prefix}system-container-executor", f"{prefix}system-container-impl"
        if name in self.templates:
            return name
        more = [*_RETRIES] if retries else []
        task = {
            "name": "executor", "template": impl,
            "arguments": _given({port: _input(port) for port in ("pod-spec-patch", *more)}),
            "when": f"{_input('cached-decision')} != true",
        }  # fmt: skip
        defaults = {"cached-decision": "false", **dict.fromkeys(more, "0")}
        self._template(name, ["pod-spec-patch", "cached-decision", *more], {"dag": {"tasks": [task]}}, defaults)
        mounts = [{"name": volume, "mountPath": path} for volume, path in _SCRATCH.items()]
        pod: Json = {
            "container": {
                "name": "", "image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime",
                "command": ["should-be-overridden-during-runtime"],
                "envFrom": [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}],
                "env": [*_POD_FACTS, *([{"name": "KFP_RETRY_INDEX", "value": "{{retries}}"}] if retries else [])],
                "resources": {}, "volumeMounts": mounts, "securityContext": _RESTRICTED,
            },
            "volumes": [{"name": volume, "emptyDir": {}} for volume in _SCRATCH],
            "initContainers": [{
                "name": "kfp-launcher", "image": _IMAGE, "command": ["launcher-v2"],
                "args": ["--copy", _LAUNCHER, "--publish_logs", "true"],
                "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m"}},
                "volumeMounts": mounts[:1], "securityContext": {**_RESTRICTED, "runAsNonRoot": True},
            }],
            **({"retryStrategy": {
                "limit": _input("retry-max-count"), "backoff": {
                    "duration": _input("retry-backoff-duration"), "factor": _input("retry-backoff-factor"),
                    "maxDuration": _input("retry-backoff-max-duration"),
                },
            }} if retries else {}),
            "securityContext": _SECCOMP, "podSpecPatch": _input("pod-spec-patch"),
        }  # fmt: skip
        self._template(impl, ["pod-spec-patch", *more], pod, role="launcher")
        return name

    def _container_driver(self) -> str:
        ports = ["component", "task", "container", "task-name", "parent-dag-id", "iteration-index", "kubernetes-config"]
        outputs = {"pod-spec-patch": {"default": ""}, "cached-decision": {"default": "false"},
                   "condition": {"default": "true"}}  # fmt: skip
        defaults = {"iteration-index": "-1", "kubernetes-config": ""}
        return self._driver("system-container-driver", "CONTAINER", ports, defaults, outputs)

    def _dag_driver(self, name: str, given: Mapping[str, str]) -> Json:
        ports = ["component", "runtime-config", "task", "task-name", "parent-dag-id", "iteration-index", "driver-type"]
        outputs = {"execution-id": {}, "iteration-count": {"default": "0"}, "condition": {"default": "true"}}
        defaults = {"runtime-config": "", "task": "", "task-name": "", "parent-dag-id": "0", "iteration-index": "-1",
                    "driver-type": "DAG"}  # fmt: skip
        template = self._driver("system-dag-driver", _input("driver-type"), ports, defaults, outputs)
        return {"name": name, "template": template, "arguments": _given(given)}

    def _driver(
        self, name: str, kind: str, ports: list[str], defaults: Mapping[str, str], outputs: Mapping[str, Json]
    ) -> str:
        if name in self.templates:
            return name
        args = [
            "--type", kind, "--pipeline_name", self.pipeline["pipelineInfo"]["name"], "--run_id", self.about.run_id,
            "--run_name", "{{workflow.name}}", "--run_display_name", self.about.shown_name,
            "--pipeline_job_create_time_utc", "{{workflow.creationTimestamp}}",
            *(word for port in ports if port != "driver-type" for word in (_option(port), _input(port))),
            *(word for port in outputs
              for word in (f"{_option(port)}_path", f"{{{{outputs.parameters.{port}.path}}}}")),
            *_SERVERS,
        ]  # fmt: skip
        written = [
            {
                "name": port,
                **({"default": "false"} if port == "cached-decision" else {}),
                "valueFrom": {"path": f"/tmp/outputs/{port}", **default},
            }
            for port, default in outputs.items()
        ]
        env = {"env": _POD_FACTS} if kind == "CONTAINER" else {}
        pod: Json = {
            "container": {
                "name": "", "image": _IMAGE, "command": ["driver"], "args": args, **env,
                "resources": {"limits": {"cpu": "500m", "memory": "512Mi"},
                              "requests": {"cpu": "100m", "memory": "64Mi"}},
                "securityContext": {**_RESTRICTED, "runAsNonRoot": True},
            },
            "securityContext": {"runAsNonRoot": True, **_SECCOMP},
        }  # fmt: skip
        self._template(name, ports, pod, defaults, {"parameters": written}, role="driver")
        return name

    def _template(
        self, name: str, ports: Iterable[str], what: Json, defaults: Mapping[str, str] | None = None,
        outputs: Json | None = None, role: str = "",
    ) -> None:  # fmt: skip
        taken = [{"name": port, **({"default": defaults[port]} if port in (defaults or {}) else {})} for port in ports]
        roles = {"pipelines.kubeflow.org/runtime-role": role} if role else {}
        annotations = {**roles, "pipelines.kubeflow.org/v2_component": "true", "sidecar.istio.io/inject": "false"}
        self.templates[name] = {
            "name": name, "inputs": {"parameters": taken} if taken else {}, "outputs": outputs or {},
            "metadata": {"annotations": annotations}, **what,
        }  # fmt: skip

    def _argument(self, name: str, value: Json) -> None:
        self.arguments.setdefault(name, _sorted_json(value))


def _option(port: str) -> str:
    """What a driver calls it."""
    return "--dag_execution_id" if port == "parent-dag-id" else f"--{port.replace('-', '_')}"


def _ends_a_dag(task: Json) -> bool:
    """Whether it is an exit handler."""
    return bool(task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED")


def _sorted_json(value: Any) -> str:
    """Source: ``stablyMarshalJSON``."""
    return go_json(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _given(values: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> Json:
    return {
        "parameters": [
            {"name": name, **({"default": defaults[name]} if name in (defaults or {}) else {}), "value": value}
            for name, value in values.items()
        ]
    }


def _after(*tasks: str) -> Json:
    return {"depends": " && ".join(f"{task}.Succeeded" for task in tasks)} if tasks else {}


def _input(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _output(task: str, name: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"


def _workflow(name: str) -> str:
    return f"{{{{workflow.parameters.{name}}}}}"


def _metadata(about: About) -> Json:
    """With what Kubernetes keeps of who changed what."""
    annotations = {
        "pipelines.kubeflow.org/run_name": about.shown_name, "workflows.argoproj.io/last-seen-version": "11639",
        "workflows.argoproj.io/pod-name-format": "v2",
    }  # fmt: skip
    managed = [
        {
            "manager": manager, "operation": "Update", "apiVersion": "argoproj.io/v1alpha1", "time": about.created,
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:annotations": {f"f:{name}": {} for name in annotations}},
                "f:spec": {}, "f:status": {},
            },
        }
        for manager in ("apiserver", "workflow-controller")
    ]  # fmt: skip
    return {
        "name": about.workflow, "generateName": f"{about.workflow.rpartition('-')[0]}-", "namespace": "kubeflow",
        "uid": about.run_id, "resourceVersion": "11648", "generation": 32, "creationTimestamp": about.created,
        "labels": {"pipeline/runid": about.run_id, "workflows.argoproj.io/completed": "true",
                   "workflows.argoproj.io/phase": "Succeeded"},
        "annotations": annotations, "managedFields": managed,
    }  # fmt: skip
