"""The few requests that a node's agent makes of its cluster's API server.

In a pod it signs in with its service account, whose token is read anew each time since it is replaced;
elsewhere with the kubeconfig in the agent's folder. It asks for single pods by name, for its own node, and
for the placements of the plane's nodes; for lists only of replicas on its own node, and of one
replica's pods in one cell's namespace.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from dataplane.agent.pods.verify import LABEL as REPLICA_LABEL
from dataplane.drivers.kubernetes.api import _context
from dataplane.drivers.kubernetes.kubeconfig import InvalidKubeconfig, Kubeconfig
from infra.config import Config

#: The platform's own namespace on a cluster.
NAMESPACE = "cytoplane"
#: What placements are found by.
LABEL = "cytoplane.dev/placements"
KEY = "placements"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = httpx.Timeout(5.0, connect=3.0)
#: How long one watch lasts; the server ends it, so silence for longer is a broken connection.
WATCH_SECONDS = 240

Object = dict[str, Any]


class ClusterError(RuntimeError):
    """The API server doesn't answer or refuses; the message says what."""


class Expired(ClusterError):
    """What happened since is forgotten there: the list has to be read again."""


def credentials(config: Config) -> Kubeconfig:
    """How to reach the API server. Raises ``ClusterError``."""
    file = config.agent_dir / "kubeconfig"
    try:
        if file.exists():
            return Kubeconfig.parse(file.read_text())
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        shown = f"[{host}]" if ":" in host else host
        authority = (_ACCOUNT / "ca.crt").read_text()
        token = (_ACCOUNT / "token").read_text().strip()
    except (OSError, KeyError, InvalidKubeconfig) as error:
        raise ClusterError(f"the agent can't sign in to its cluster: {error}") from None
    return Kubeconfig(server=f"https://{shown}:{port}", authority=authority, token=token)


class Cluster:
    """Calls from any thread. All methods raise ``ClusterError``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: Kubeconfig | None = None
        self._client: httpx.Client | None = None

    def _open(self) -> tuple[httpx.Client, dict[str, str]]:
        found = credentials(self._config)
        shared = (found.server, found.authority, found.certificate, found.key)
        known = self._known
        if self._client is None or known is None or shared != _shared(known):
            self._client = httpx.Client(
                base_url=found.server,
                verify=_context(found),
                timeout=_TIMEOUT,
                trust_env=False,
                follow_redirects=False,
            )
        self._known = found
        return self._client, {"Authorization": f"Bearer {found.token}"} if found.token else {}

    @property
    def server(self) -> str:
        """The API server's address, as it is dialled."""
        return credentials(self._config).server

    def _send(self, method: str, path: str, **more: Any) -> Object | None:
        client, headers = self._open()
        try:
            answer = client.request(method, path, headers={**headers, **more.pop("headers", {})}, **more)
        except (httpx.HTTPError, OSError) as error:
            raise ClusterError(f"the cluster's API server doesn't answer ({type(error).__name__})") from None
        if answer.status_code == 404:
            return None
        if answer.status_code == 410:
            raise Expired("what was seen last is too old for the cluster's API server")
        try:
            document = answer.json()
        except ValueError:
            raise ClusterError("what answers isn't a Kubernetes API server") from None
        if not answer.is_success:
            raise ClusterError(f"the cluster's API server refuses: {str(document.get('message', ''))[:300]}")
        return document

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod; None if there is none of this name."""
        return self._send("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    def secret(self, namespace: str, name: str) -> Object | None:
        """A secret; None if there is none of this name."""
        return self._send("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")

    def forget_secret(self, namespace: str, name: str) -> None:
        """Delete a secret; nothing happens if there is none."""
        self._send("DELETE", f"/api/v1/namespaces/{namespace}/secrets/{name}")

    def pods_of(self, namespace: str, replica: str) -> list[Object]:
        """Pods of a cell's namespace that say they are this replica."""
        found = self._send(
            "GET",
            f"/api/v1/namespaces/{namespace}/pods",
            params={"labelSelector": f"{REPLICA_LABEL}={replica}", "limit": "20"},
        )
        return (found or {}).get("items") or []

    def pods_on(self, node: str) -> list[Object]:
        """Replicas on a node, as the API server has them in memory. Who isn't among them is closed in the end."""
        parameters = {
            "fieldSelector": f"spec.nodeName={node}",
            "labelSelector": REPLICA_LABEL,
            "resourceVersion": "0",
        }
        found = self._send("GET", "/api/v1/pods", params=parameters)
        if found is None or found.get("kind") != "PodList":
            raise ClusterError("what answers isn't a Kubernetes API server")
        return found.get("items") or []

    def own_addresses(self) -> list[str]:
        """Addresses of the API server itself."""
        found = self._send("GET", "/api/v1/namespaces/default/endpoints/kubernetes") or {}
        listed = [
            entry["ip"] for subset in found.get("subsets") or [] for entry in subset.get("addresses") or []
        ]
        host = urlsplit(self.server).hostname or ""
        try:
            listed.append(str(ipaddress.ip_address(host)))
        except ValueError:
            pass  # a name: its addresses are among the others
        return sorted(set(listed))

    def node(self, name: str) -> Object | None:
        """A node as the cluster knows it; None if there is none of this name."""
        return self._send("GET", f"/api/v1/nodes/{name}")

    def ready(self, name: str) -> bool:
        """Whether the cluster hears of a node and it is well."""
        return any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in ((self.node(name) or {}).get("status") or {}).get("conditions") or []
        )

    def publish(self, node: str, uid: str, document: Object) -> None:
        """Say what this node knows of its own pods, in place of what it said before.

        ``uid`` is the cluster's of the node: what a node said goes with it.
        """
        name = f"placements-{node}"
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        whole = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {LABEL: "true"},
                **({"ownerReferences": [owner]} if uid else {}),
            },
            "data": {KEY: json.dumps(document, sort_keys=True)},
        }
        self._send(
            "PATCH",
            f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}",
            content=json.dumps(whole),
            params={"fieldManager": "cytoplane-agent", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def placements(self) -> tuple[dict[str, str], str]:
        """Name → text of all that nodes say, and the version from which to watch."""
        found = self._send(
            "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps", params={"labelSelector": LABEL}
        )
        if found is None:
            raise ClusterError("the cluster's API server knows no ConfigMaps")
        texts = {item["metadata"]["name"]: _said(item) for item in found.get("items") or []}
        return texts, found["metadata"]["resourceVersion"]

    def watch(self, version: str) -> Iterator[tuple[str, str | None, str]]:
        """Changes since a version, as they come: name, text (None: it is gone), the version reached.

        Ends after a while; raises ``Expired`` if the version is too old.
        """
        client, headers = self._open()
        parameters = {
            "labelSelector": LABEL,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
        patience = httpx.Timeout(5.0, connect=3.0, read=WATCH_SECONDS + 30)
        try:
            with client.stream("GET", path, params=parameters, headers=headers, timeout=patience) as answer:
                if answer.status_code == 410:
                    raise Expired("what was seen last is too old for the cluster's API server")
                if not answer.is_success:
                    raise ClusterError(f"watching placements is refused with {answer.status_code}")
                for line in answer.iter_lines():
                    yield from _event(line)
        except (httpx.HTTPError, OSError) as error:
            raise ClusterError(f"watching placements ended ({type(error).__name__})") from None


def internal_addresses(node: Object) -> list[str]:
    """Addresses by which other nodes reach this one."""
    entries = (node.get("status") or {}).get("addresses") or []
    return [entry["address"] for entry in entries if entry.get("type") == "InternalIP"]


def _event(line: str) -> Iterator[tuple[str, str | None, str]]:
    try:
        event = json.loads(line)
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise Expired("what was seen last is too old for the cluster's API server")
            raise ClusterError(f"watching placements ended: {item.get('message', '')}")
        metadata = item["metadata"]
        if kind == "BOOKMARK":
            yield "", None, metadata["resourceVersion"]
        else:
            text = None if kind == "DELETED" else _said(item)
            yield metadata["name"], text, metadata["resourceVersion"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ClusterError("what answers isn't a Kubernetes API server") from None


def _said(item: Object) -> str:
    return str((item.get("data") or {}).get(KEY, ""))


def _shared(found: Kubeconfig) -> tuple[str, str, str, str]:
    return found.server, found.authority, found.certificate, found.key
