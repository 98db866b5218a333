"""Whether a pod of a cell asks for no more than it may: Pod Security's `restricted`, and what is the platform's own.

The platform's chart asks for less than this, and a newer cluster's admission refuses the rest. Older ones
have none: there, whoever may make pods in a cell's namespace could start one that is root on the node, with
the cell's identity. So the node looks itself, and lets through only what the chart uses: a profile that lies
on the node, for one, is none of the runtime's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_HOST = ("hostNetwork", "hostPID", "hostIPC")
#: Kinds of volumes that hold nothing of the node.
_VOLUMES = frozenset(
    {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
#: Before they were fields; the field counts, but no other word may stand beside it.
_PROFILES = (
    "seccomp.security.alpha.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "container.apparmor.security.beta.kubernetes.io/",
)
_OWN_PROFILES = frozenset({"runtime/default", "docker/default"})
_SELINUX = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")

Security = Mapping[str, Any]


def refusal(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], containers: Iterable[Mapping[str, Any]]
) -> str:
    """Why the pod mayn't run in a cell, as a sentence; "" if it may. ``containers``: all that runs in it."""
    for field in _HOST:
        if spec.get(field):
            return f"a cell's pod can't have {field}"
    pod: Security = spec.get("securityContext") or {}
    if pod.get("sysctls"):
        return "a cell's pod can't set sysctls"
    for name, value in (metadata.get("annotations") or {}).items():
        if name.startswith(_PROFILES) and value not in _OWN_PROFILES:
            return f"a cell's pod can't have the annotation {name} with another profile than the runtime's"
    for container in containers:
        if why := _container(container, pod):
            return f"container {container.get('name', '?')} {why}"
    for volume in spec.get("volumes") or []:
        kinds = {key for key, value in volume.items() if key != "name" and value is not None}
        if not kinds <= _VOLUMES:
            return (
                f"a cell's pod can't have the volume {volume.get('name', '?')} ({', '.join(sorted(kinds))})"
            )
    return ""


def _container(container: Mapping[str, Any], pod: Security) -> str:
    """What is wrong with a container; what it doesn't say itself is said by its pod."""
    own: Security = container.get("securityContext") or {}
    if why := _reaching_out(container, own):
        return why
    if why := _user(own, pod):
        return why
    if own.get("allowPrivilegeEscalation") is not False:
        return "doesn't forbid privilege escalation (allowPrivilegeEscalation: false)"
    if "ALL" not in ((own.get("capabilities") or {}).get("drop") or []):
        return "doesn't drop all capabilities (capabilities: drop: [ALL])"
    return _profiles(own, pod)


def _reaching_out(container: Mapping[str, Any], own: Security) -> str:
    """What leads around the pod's network, or to the node."""
    if own.get("privileged"):
        return "is privileged"
    if (own.get("capabilities") or {}).get("add"):
        return "adds capabilities"
    if own.get("procMount") not in (None, "Default"):
        return "has an unmasked /proc"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        return "takes a port of the node"
    if container.get("volumeDevices"):
        return "has a block device"
    # The node's own process would ask there, from the node's address.
    asked = [container.get(name) for name in _PROBES] + list((container.get("lifecycle") or {}).values())
    for handler in asked:
        for kind in ("httpGet", "tcpSocket"):
            if ((handler or {}).get(kind) or {}).get("host"):
                return "has the node ask another host than the pod"
    return ""


def _user(own: Security, pod: Security) -> str:
    if _said("runAsNonRoot", own, pod) is not True:
        return "may run as root (runAsNonRoot: true is missing)"
    if _said("runAsUser", own, pod) == 0:
        return "runs as root (runAsUser: 0)"
    return ""


def _profiles(own: Security, pod: Security) -> str:
    """Of what the kernel lets it do: the runtime's own, or none that somebody could have weakened."""
    if (_said("seccompProfile", own, pod) or {}).get("type") != "RuntimeDefault":
        return "hasn't the runtime's seccomp profile (seccompProfile: type: RuntimeDefault)"
    for level in (own, pod):
        if (level.get("appArmorProfile") or {}).get("type", "RuntimeDefault") != "RuntimeDefault":
            return "has another AppArmor profile than the runtime's"
        label = level.get("seLinuxOptions") or {}
        if label.get("type", "") not in _SELINUX or label.get("user") or label.get("role"):
            return "has an SELinux label of its own"
        if (level.get("windowsOptions") or {}).get("hostProcess"):
            return "is a process of the node"
    return ""


def _said(name: str, own: Security, pod: Security) -> Any:
    value = own.get(name)
    return pod.get(name) if value is None else value
