"""A container as a pod of Kubernetes, with claims for what is to stay; the restricted Pod Security Standard admits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from torchstrata.containers.description import HOME, ContainerDescription
from torchstrata.image.runtime import DEV, PROBE, WORKSPACE
from torchstrata.platforms import architecture

FILE = "pod.yaml"
SIZE: Final = "20Gi"
"""What a claim asks for; a cluster's default class of storage serves it."""

PORT_NAME: Final = 15
"""Characters of a port's name (RFC 6335, section 5.1)."""

SHM: Final = "shm"
KEY: Final = "ssh-public-key"


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the file: two claims and the pod."""
    name = description.label
    documents = [_claim(f"{name}-workspace"), _claim(f"{name}-home"), _pod(description)]
    ports = " ".join(f"{each.published}:{each.port}" for each in description.endpoints)
    into = f"# Into it: kubectl exec -it {name} -- bash -l\n" if description.is_interactive else ""
    head = f"# {description.title}.\n# Start: kubectl apply -f {FILE}\n{into}"
    reach = f"# Reach it: kubectl port-forward pod/{name} {ports}; its address, with the token: kubectl logs {name}\n" if ports else ""
    secret = f"# SSH lets in who is in this secret: kubectl create secret generic {name} --from-file={KEY}=$HOME/.ssh/id_ed25519.pub\n"
    asks = secret if description.has_ssh and not description.authorized_keys else ""
    return {FILE: head + reach + asks + yaml.safe_dump_all(documents, sort_keys=False, width=1000)}


def _claim(name: str) -> dict[str, Any]:
    resources = {"requests": {"storage": SIZE}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources},
    }


def _pod(description: ContainerDescription) -> dict[str, Any]:
    uid, gid = map(int, DEV.split(":"))
    name = description.label
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "restartPolicy": "Never",
            **({"nodeSelector": {"kubernetes.io/arch": architecture(description.platform)}} if description.unusual_platform else {}),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": uid,
                "runAsGroup": gid,
                "fsGroup": gid,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{name: value for name, value in _container(description).items() if value}],
            "volumes": [
                {"name": "workspace", "persistentVolumeClaim": {"claimName": f"{name}-workspace"}},
                {"name": "home", "persistentVolumeClaim": {"claimName": f"{name}-home"}},
                {"name": SHM, "emptyDir": {"medium": "Memory", "sizeLimit": f"{description.shm >> 20}Mi"}},
            ],
        },
    }


def _container(description: ContainerDescription) -> dict[str, Any]:
    gpus = description.gpus
    return {
        "name": "torch",
        "image": description.image,
        "imagePullPolicy": "IfNotPresent" if description.is_pullable else "Never",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "tty": description.is_interactive,
        "stdin": description.is_interactive,
        "env": _environment(description),
        "ports": [{"name": each.name[:PORT_NAME].rstrip("-"), "containerPort": each.port} for each in description.endpoints],
        "resources": {"limits": {"nvidia.com/gpu": gpus.amount}} if gpus else {},
        "startupProbe": _probe(2, 150),
        "readinessProbe": _probe(10, 3),
        "livenessProbe": _probe(30, 10),
        "volumeMounts": [
            {"name": "workspace", "mountPath": WORKSPACE},
            {"name": "home", "mountPath": HOME},
            {"name": SHM, "mountPath": "/dev/shm"},  # noqa: S108  # the mount point itself
        ],
    }


def _probe(seconds: int, failures: int) -> dict[str, Any]:
    """Return a probe by the image's own program."""
    return {"exec": {"command": [*PROBE]}, "timeoutSeconds": 5, "periodSeconds": seconds, "failureThreshold": failures}


def _environment(description: ContainerDescription) -> list[dict[str, Any]]:
    """Return the variables; without a key of SSH that of a secret counts, if there is one."""
    given: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in description.environment.items()]
    secret = {"secretKeyRef": {"name": description.label, "key": KEY, "optional": True}}
    asks = description.has_ssh and not description.authorized_keys
    return [*given, *([{"name": "SSH_PUBLIC_KEY", "valueFrom": secret}] if asks else [])]
