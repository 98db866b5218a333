"""A release of the control plane's chart on a cluster, with what an operator and a member do to it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from dataplane.drivers.kubernetes import helm
from infra.cluster.client import Client
from tests.cluster import TwoNodes
from tests.infra.charts.servers import Servers

CHART = Path(__file__).resolve().parents[3] / "infra" / "charts" / "cytoplane"
NAMESPACE, RELEASE = "cytoplane", "cy"
#: What the image runs as.
USER = 10001
HOST, ADMIN, PASSWORD = "portal.test", "admin@example.org", "correct horse battery"


class Release:
    """The chart in a namespace of its own. Folders of the machine that both nodes see are its volumes."""

    def __init__(self, nodes: TwoNodes, servers: Servers, shared: Path, images: dict[str, str]) -> None:
        self.nodes, self.servers, self.shared, self.images = nodes, servers, shared, images
        self._base = f"/api/v1/namespaces/{NAMESPACE}"

    def client(self) -> Client:
        return self.nodes.client()

    def prepare(self) -> None:
        """What the chart's README asks for: namespace, Secrets, storage."""
        with self.client() as client:
            client.create("/api/v1/namespaces", _object("Namespace", NAMESPACE))
            authority = {"password": self.servers.password.encode(), "ca.crt": self.servers.authority}
            for name, data in (("servers", authority), ("admin", {"password": PASSWORD.encode()})):
                encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
                client.create(f"{self._base}/secrets", {**_object("Secret", name), "data": encoded})
            for name, mode, user in (
                ("repositories", "ReadWriteMany", USER),
                ("images", "ReadWriteOnce", USER + 2),
            ):
                folder = self.shared / name
                folder.mkdir()
                os.chown(folder, user, user)
                folder.chmod(0o770)
                volume = _object("PersistentVolume", f"test-{name}")
                volume["spec"] = {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": [mode],
                    "storageClassName": f"test-{name}",
                    "hostPath": {"path": str(folder), "type": "Directory"},
                }
                client.create("/api/v1/persistentvolumes", volume)

    def values(self, **more: Any) -> dict[str, Any]:
        server = {"host": self.servers.address, "existingSecret": "servers"}
        return {
            "images": {**self.images},
            "portal": {"url": f"http://{HOST}:8000"},
            "agents": {"names": ["agents.test"]},
            "applications": {"domain": "apps.test"},
            "database": {**server, "port": self.servers.postgres_port, "tls": {"caSecret": "servers"}},
            "redis": {**server, "port": self.servers.redis_port, "tls": {"caSecret": "servers"}},
            "admin": {"email": ADMIN, "existingSecret": "admin"},
            "repositories": {"storageClass": "test-repositories", "size": "1Gi"},
            "registry": {"storageClass": "test-images", "size": "1Gi"},
            **more,
        }

    def upgrade(self, **more: Any) -> None:
        """Install or upgrade, and wait until everything is ready. Raises with Helm's words."""
        command = [helm.executable(), "upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE]
        command += ["--kubeconfig", str(self.nodes.cluster.kubeconfig), "--values", "-"]
        done = subprocess.run(
            [*command, "--wait", "--timeout", "400s"],
            input=json.dumps(self.values(**more)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{done.stderr}\n{self.logs()}")

    def uninstall(self) -> None:
        command = [helm.executable(), "uninstall", RELEASE, "--namespace", NAMESPACE]
        command += ["--kubeconfig", str(self.nodes.cluster.kubeconfig), "--wait", "--timeout", "60s"]
        subprocess.run(command, capture_output=True, check=False)
        with self.client() as client:
            client.remove(f"/api/v1/namespaces/{NAMESPACE}")
            for name in ("repositories", "images"):
                client.remove(f"/api/v1/persistentvolumes/test-{name}")

    def pods(self, part: str) -> dict[str, dict[str, Any]]:
        """Pods of a part that are ready and stay, by name."""
        found = self.nodes.pods(NAMESPACE, f"app.kubernetes.io/component={part}")
        return {
            name: pod
            for name, pod in found.items()
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])
            )
        }

    def addresses(self, part: str = "web") -> list[str]:
        return [pod["status"]["podIP"] for pod in self.pods(part).values()]

    def kill(self, name: str) -> None:
        """End a pod without a word, as a node's power cut does."""
        with self.client() as client:
            client.delete(f"{self._base}/pods/{name}", params={"gracePeriodSeconds": 0})

    def secret(self, name: str) -> dict[str, bytes]:
        with self.client() as client:
            data = client.document(f"{self._base}/secrets/{name}")["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def run_job(self, template: dict[str, Any], names: list[str]) -> None:
        """Run jobs like this one, all at once, and wait for their success."""
        jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
        with self.client() as client:
            for name in names:
                metadata = {"name": name, "labels": template["metadata"]["labels"]}
                client.create(jobs, {**template, "metadata": metadata})
            end = time.monotonic() + 90
            while time.monotonic() < end:
                states = [client.document(f"{jobs}/{name}").get("status", {}) for name in names]
                assert not any(state.get("failed") for state in states), self.logs()
                if all(state.get("succeeded") for state in states):
                    return
                time.sleep(0.5)
        raise AssertionError(f"the jobs don't end\n{self.logs()}")

    def rendered(self) -> list[dict[str, Any]]:
        """The release's objects as Helm makes them, hooks included."""
        return render(self.values())

    def logs(self) -> str:
        """Last lines of what isn't ready, for complaints."""
        lines = []
        with self.client() as client:
            for name, pod in self.nodes.pods(NAMESPACE).items():
                spec = pod["spec"]
                for container in [*spec.get("initContainers", []), *spec["containers"]]:
                    path = f"{self._base}/pods/{name}/log"
                    answer = client.get(path, params={"container": container["name"], "tailLines": 15})
                    lines.append(f"--- {name} {container['name']}: {answer.text[-1500:]}")
        return "\n".join(lines)


def render(values: dict[str, Any], version: str = "1.20.2") -> list[dict[str, Any]]:
    """The chart's objects for a version of Kubernetes. Raises ``AssertionError`` with Helm's words."""
    command = [helm.executable(), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    done = subprocess.run(
        [*command, "--kube-version", version, "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class Portal:
    """The portal at one pod's address, as one person."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address
        headers = {"Host": f"{HOST}:8000"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.http = httpx.Client(
            base_url=f"http://{address}:8000", headers=headers, timeout=60, trust_env=False
        )

    def call(self, method: str, path: str, document: Any = None) -> Any:
        answer = self.http.request(method, f"/api/v1{path}", json=document)
        assert answer.is_success, answer.text
        return answer.json()

    def token(self, email: str, password: str) -> str:
        document = {"email": email, "password": password, "name": "test", "days": 1}
        return self.call("POST", "/tokens", document)["token"]


def push(work: Path, address: str, token: str, tenant: str, project: str) -> subprocess.Popen:
    """Start pushing a folder's repository by way of one pod."""
    askpass = work.parent / "askpass"
    askpass.write_text('#!/bin/sh\nprintf %s "$CYTOPLANE_TOKEN"\n')
    askpass.chmod(0o700)
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ASKPASS": str(askpass),
        "GIT_TERMINAL_PROMPT": "0",
        "CYTOPLANE_TOKEN": token,
    }
    command = ["git", "-C", str(work), "-c", f"http.curloptResolve={HOST}:8000:{address}", "push"]
    url = f"http://member@{HOST}:8000/git/{tenant}/{project}.git"
    return subprocess.Popen(
        [*command, url, "main"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def commit(work: Path, files: dict[str, str]) -> None:
    """A repository with one commit."""
    work.mkdir()
    for name, text in files.items():
        (work / name).write_text(text)
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "First")):
        subprocess.run(["git", "-C", str(work), *who, *words], check=True)


def _object(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def eventually(ready: Callable[[], Any], seconds: float, complaint: Callable[[], str] | str) -> Any:
    """Wait for what ``ready`` returns; a portal that is just going away counts as not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := ready():
                return found
        except (httpx.HTTPError, OSError):
            pass
        assert time.monotonic() < end, complaint if isinstance(complaint, str) else complaint()
        time.sleep(0.3)
