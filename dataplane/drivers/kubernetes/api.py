"""The few requests to a Kubernetes API that the driver makes itself, with their errors in words."""

from __future__ import annotations

import builtins
import json
import re
import ssl
from types import TracebackType
from typing import Any

import httpx

from dataplane import reporting
from dataplane.drivers.interface import Denied, DriverError, NoRoom, Rejected, Unreachable
from dataplane.drivers.kubernetes.budget import Budget
from dataplane.drivers.kubernetes.kubeconfig import Kubeconfig
from dataplane.drivers.kubernetes.memory import memory_file

Object = dict[str, Any]

#: What server-side apply knows our fields by.
MANAGER = "cytoplane"
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_MOST = 4 * 2**20
#: Objects in one answer.
_PAGE = 100
#: kind → (plural, whether its objects are in a namespace). Everything that the cell chart holds.
KINDS = {
    "Namespace": ("namespaces", False),
    "ResourceQuota": ("resourcequotas", True),
    "LimitRange": ("limitranges", True),
    "ServiceAccount": ("serviceaccounts", True),
    "NetworkPolicy": ("networkpolicies", True),
    "Secret": ("secrets", True),
    "Deployment": ("deployments", True),
    "PodDisruptionBudget": ("poddisruptionbudgets", True),
    "Pod": ("pods", True),
}
#: What is looked at, and belongs to no chart.
SEEN = {
    "Pod": ("pods", True),
    "Event": ("events", True),
    "Node": ("nodes", False),
    "Lease": ("leases", True),
    "RoleBinding": ("rolebindings", True),
    "ConfigMap": ("configmaps", True),
    "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    "Service": ("services", True),
    "Ingress": ("ingresses", True),
    "ReplicaSet": ("replicasets", True),
}


def path_of(document: Object, *, name: bool = True) -> str:
    """The address of an object, or with ``name=False`` of the list it belongs to."""
    plural, in_namespace = (KINDS | SEEN)[document["kind"]]
    version, metadata = document["apiVersion"], document["metadata"]
    parts = ["/api" if "/" not in version else "/apis", version]
    if in_namespace:
        parts += ["namespaces", metadata["namespace"]]
    parts += [plural, metadata["name"]] if name else [plural]
    return "/".join(parts)


class Changed(Unreachable):
    """Somebody else changed it since it was read."""


class Api:
    """A client of one API server; a context manager. All methods raise ``DriverError``."""

    def __init__(self, kubeconfig: Kubeconfig, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._server = kubeconfig.server
        headers = {"Authorization": f"Bearer {kubeconfig.token}"} if kubeconfig.token else {}
        extensions = {"sni_hostname": kubeconfig.server_name} if kubeconfig.server_name else {}
        self._extensions = extensions
        self._client = httpx.Client(
            base_url=kubeconfig.server,
            verify=_context(kubeconfig),
            headers=headers,
            timeout=_TIMEOUT,
            # A redirect would take the credentials somewhere else.
            follow_redirects=False,
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _send(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        self._budget.left()
        content = None if body is None else json.dumps(body).encode()
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            **more.pop("headers", {}),
        }
        try:
            response = self._client.request(
                method, path, content=content, headers=headers, extensions=self._extensions, **more
            )
        except ssl.SSLError as error:
            raise Denied(f"{self._server} can't be trusted: {error.reason}") from None
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Denied(
                    f"The certificate of {self._server} isn't from the kubeconfig's authority."
                ) from None
            raise Unreachable(f"{self._server} doesn't answer ({type(error).__name__}).") from None
        if len(response.content) > _MOST:
            raise Rejected(f"{self._server} answered with more than {_MOST // 2**20} MiB.")
        return response

    def _read(self, response: httpx.Response) -> Object:
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                raise Rejected(f"{self._server} isn't a Kubernetes API.") from None
        raise failure(response.status_code, _message(response))

    def check(self) -> str:
        """The server's version; raises unless it answers and takes the credentials."""
        found = self._read(self._send("GET", "/version"))
        version = found.get("gitVersion")
        if not isinstance(version, str):
            raise Rejected(f"{self._server} isn't a Kubernetes API.")
        # /version answers anonymous callers of many clusters too: ask for something that doesn't.
        self.list("v1", "Namespace", "", limit=1)
        return version

    def get(self, version: str, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None if there is none."""
        document = {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}}
        response = self._send("GET", path_of(document))
        return None if response.status_code == 404 else self._read(response)

    def list(
        self, version: str, kind: str, namespace: str, limit: int = _PAGE, **selectors: str
    ) -> list[Object]:
        """Objects of a kind in a namespace, ``limit`` at a time; ``labelSelector``, ``fieldSelector``."""
        document = {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace}}
        path, token = path_of(document, name=False), ""
        found: builtins.list[Object] = []
        while True:
            params = {"limit": limit, **selectors, **({"continue": token} if token else {})}
            part = self._read(self._send("GET", path, params=params))
            found += part.get("items") or []
            token = (part.get("metadata") or {}).get("continue") or ""
            if not token or limit < _PAGE:
                return found

    def log(
        self, namespace: str, pod: str, container: str, *, previous: bool, lines: int
    ) -> builtins.list[str]:
        """The last lines of a container, or of the one before it; none where there is no log."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        params = {"container": container, "tailLines": lines, "limitBytes": 64 * 1024, "previous": previous}
        response = self._send("GET", path, params=params, headers={"Accept": "*/*"})
        # A node that has lost it says so in the log's place, with a status that says it went well.
        if not response.is_success or response.text.startswith("unable to retrieve container logs"):
            return []
        return reporting.shortened(response.text.splitlines()[-lines:])

    def create(self, document: Object) -> bool:
        """Make an object; False if there is one already."""
        response = self._send("POST", path_of(document, name=False), document)
        if response.status_code == 409:
            return False
        self._read(response)
        return True

    def apply(self, document: Object) -> Object:
        """Server-side apply: make it exist with these fields, leave fields of others alone."""
        return self._read(
            self._send(
                "PATCH",
                path_of(document),
                document,
                params={"fieldManager": MANAGER, "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
            )
        )

    def replace(self, document: Object) -> Object:
        """Put an object in place of the one whose ``resourceVersion`` it carries."""
        return self._read(self._send("PUT", path_of(document), document))

    def merge(self, version: str, kind: str, namespace: str, name: str, fields: Object) -> None:
        """Set fields of an object; None takes one away. Nothing happens if there is no such object."""
        document = {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}}
        headers = {"Content-Type": "application/merge-patch+json"}
        response = self._send("PATCH", path_of(document), fields, headers=headers)
        if response.status_code != 404:
            self._read(response)

    def would_be(self, document: Object) -> Object:
        """What the server would make of a new object, with defaults and canonical amounts."""
        trial = {
            **document,
            "metadata": {**document["metadata"], "name": f"{document['metadata']['name']}-trial"},
        }
        return self._read(self._send("POST", path_of(trial, name=False), trial, params={"dryRun": "All"}))

    def delete(self, version: str, kind: str, namespace: str, name: str) -> None:
        """Delete an object; nothing happens if there is none."""
        document = {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}}
        response = self._send("DELETE", path_of(document))
        if response.status_code != 404:
            self._read(response)


def failure(status: int, message: str) -> DriverError:
    """A refused request in the words of the interface."""
    if (refused := admission(message)) is not None:
        return refused
    if status in (401, 403):
        return Denied(f"The cluster refuses the kubeconfig's credentials: {message}")
    if status == 409:
        return Changed(f"Somebody else changed it at the same time: {message}")
    if status == 429 or status >= 500:
        return Unreachable(f"The cluster can't answer at the moment: {message}")
    return Rejected(f"The cluster refuses the cell: {message}")


def admission(message: str) -> DriverError | None:
    """What the cluster's admission said, if it did: it answers with the status of rights that are missing."""
    if "exceeded quota" in message:
        return NoRoom(f"The cell's quota has no room: {message}")
    if "violates PodSecurity" in message or re.search(r"forbidden: .*usage per (Container|Pod)", message):
        return Rejected(f"The cluster refuses the cell: {message}")
    return None


def _message(response: httpx.Response) -> str:
    try:
        text = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        text = f"status {response.status_code}"
    return str(text)[:500]


def _context(kubeconfig: Kubeconfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=kubeconfig.authority or None)
        if kubeconfig.certificate:
            # OpenSSL reads key pairs from files only.
            with memory_file(f"{kubeconfig.certificate}\n{kubeconfig.key}\n") as path:
                context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise Denied(f"The kubeconfig's certificates can't be read ({type(error).__name__}).") from None
    return context
