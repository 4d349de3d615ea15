"""A container as a pod of Kubernetes, with claims for what stays; the restricted Pod Security Standard admits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from torchstrata.containers.description import HOME, ContainerDescription
from torchstrata.image.runtime import DEV, PROBE, WORKSPACE
from torchstrata.platforms import architecture

FILE = "pod.yaml"
SIZE: Final = "20Gi"
"""What a claim asks a cluster's default storage class for."""

PORT_NAME: Final = 15
"""Characters of a port's name (RFC 6335, section 5.1)."""

SHM: Final = "shm"
KEY: Final = "ssh-public-key"


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the file: two claims and the pod."""
    name = description.label
    documents = [_claim(f"{name}-workspace"), _claim(f"{name}-home"), _pod(description)]
    head = "".join(f"# {line}\n" for line in _head(description))
    return {FILE: head + yaml.safe_dump_all(documents, sort_keys=False, width=1000)}


def _head(description: ContainerDescription) -> Iterator[str]:
    """Yield what to do with the file, a line each."""
    name = description.label
    yield f"{description.title}."
    yield f"Start: kubectl apply -f {FILE}"
    if description.is_interactive:
        yield f"Into it: kubectl exec -it {name} -- bash -l"
    if ports := " ".join(f"{endpoint.published}:{endpoint.port}" for endpoint in description.endpoints):
        address = f"its address, with the token: kubectl logs {name}"
        yield f"Reach it: kubectl port-forward pod/{name} {ports}; {address}"
    if description.lacks_ssh_key:
        secret = f"kubectl create secret generic {name} --from-file={KEY}=$HOME/.ssh/id_ed25519.pub"
        yield f"SSH lets in who is in this secret: {secret}"


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
            **_nodes(description),
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


def _nodes(description: ContainerDescription) -> dict[str, Any]:
    """Return which nodes can run the pod; nothing where any can."""
    wanted = architecture(description.platform)
    return {"nodeSelector": {"kubernetes.io/arch": wanted}} if description.unusual_platform else {}


def _container(description: ContainerDescription) -> dict[str, Any]:
    gpus = description.gpus
    ports = [(endpoint.name[:PORT_NAME].rstrip("-"), endpoint.port) for endpoint in description.endpoints]
    return {
        "name": "torch",
        "image": description.image,
        "imagePullPolicy": "IfNotPresent" if description.is_pullable else "Never",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "tty": description.is_interactive,
        "stdin": description.is_interactive,
        "env": _environment(description),
        "ports": [{"name": name, "containerPort": port} for name, port in ports],
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
    """Return the variables; where no SSH key is known, a secret may hold one."""
    given = description.environment.items()
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in given]
    if description.lacks_ssh_key:
        secret = {"secretKeyRef": {"name": description.label, "key": KEY, "optional": True}}
        variables.append({"name": "SSH_PUBLIC_KEY", "valueFrom": secret})
    return variables
