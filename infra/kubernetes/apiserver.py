"""A real Kubernetes API server on loopback: etcd, kube-apiserver and, if it is built, the controllers.

For tests and for trying things: ``python -m infra.kubernetes.apiserver`` starts one, prints where its
kubeconfig is and ends it with Ctrl-C. Everything lies in one temporary folder, every process ends
with the one that started it, and ports are free ones of 127.0.0.1. RBAC is on.
"""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from infra.kubernetes.binaries import NotBuilt, build, built, cache
from infra.kubernetes.certificates import Authority, signing_key, write_secret
from infra.kubernetes.kubeconfig import kubeconfig

LOOPBACK = "127.0.0.1"
_SECONDS = 60.0
_ADMIN = ("admin", ("system:masters",))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


class ApiServer:
    """One API server with its store. A context manager; ``stop`` may be called at any time."""

    def __init__(self) -> None:
        if not built():
            raise NotBuilt(f"kube-apiserver isn't in {cache()}: run infra/kubernetes/build.sh")
        if shutil.which("etcd") is None:
            raise NotBuilt("etcd isn't installed (Debian: etcd-server)")
        self.folder = Path(tempfile.mkdtemp(prefix="cytoplane-kubernetes-"))
        self.port = _free_port()
        self.authority = Authority()
        self._processes: dict[str, subprocess.Popen] = {}

    @property
    def address(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def has_controllers(self) -> bool:
        """Whether namespaces are emptied and quotas counted; without them only the API is there."""
        return "kube-controller-manager" in self._processes

    def start(self) -> ApiServer:
        """Start everything and wait until the API answers. Raises ``RuntimeError`` with the log's end."""
        try:
            self._files()
            self._etcd()
            self._api()
            if built("kube-controller-manager"):
                self._controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the processes, newest first, and remove the folder."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait(timeout=_SECONDS)
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Let the API server answer nothing, as one does that is overloaded."""
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def kubeconfig(self, user: str = _ADMIN[0], groups: tuple[str, ...] = _ADMIN[1]) -> str:
        """A kubeconfig for a user of these groups, everything inline."""
        return kubeconfig(self.address, self.authority, user, groups)

    def _files(self) -> None:
        (self.folder / "authority.pem").write_bytes(self.authority.pem)
        certificate, key = self.authority.issue("kubernetes", address=LOOPBACK)
        (self.folder / "server.pem").write_bytes(certificate)
        write_secret(self.folder / "server.key", key)
        signing_key(self.folder / "accounts.key")
        write_secret(self.folder / "kubeconfig", self.kubeconfig().encode())

    def _spawn(self, name: str, executable: Path | str, options: dict[str, str | int]) -> subprocess.Popen:
        flags = [f"--{key}={value}" for key, value in options.items()]
        # Whatever ends the one that started it ends it too.
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(executable), *flags]
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)
        self._processes[name] = process
        return process

    def _wait(self, name: str, ready) -> None:  # type: ignore[no-untyped-def]
        process, end = self._processes[name], time.monotonic() + _SECONDS
        while process.poll() is None and time.monotonic() < end:
            if ready():
                return
            time.sleep(0.1)
        log = (self.folder / f"{name}.log").read_text(errors="replace")
        raise RuntimeError(f"{name} didn't start:\n{log[-2000:]}")

    def _etcd(self) -> None:
        port, peer = _free_port(), _free_port()
        self._store = f"https://{LOOPBACK}:{port}"
        keys = {"cert-file": "server.pem", "key-file": "server.key", "trusted-ca-file": "authority.pem"}
        self._spawn(
            "etcd",
            "etcd",
            {
                "name": "development",
                "data-dir": "etcd",
                "listen-client-urls": self._store,
                "advertise-client-urls": self._store,
                "listen-peer-urls": f"http://{LOOPBACK}:{peer}",
                "initial-advertise-peer-urls": f"http://{LOOPBACK}:{peer}",
                "initial-cluster": f"development=http://{LOOPBACK}:{peer}",
                # Other users of the machine reach its loopback too.
                "client-cert-auth": "true",
                **keys,
            },
        )
        self._wait("etcd", lambda: self._answers(f"{self._store}/health"))

    def _api(self) -> None:
        self._spawn(
            "kube-apiserver",
            cache() / "kube-apiserver",
            {
                "bind-address": LOOPBACK,
                "advertise-address": LOOPBACK,
                # As every cluster that runs a network of its own has it.
                "allow-privileged": "true",
                "secure-port": self.port,
                "etcd-servers": self._store,
                "etcd-cafile": "authority.pem",
                "etcd-certfile": "server.pem",
                "etcd-keyfile": "server.key",
                "tls-cert-file": "server.pem",
                "tls-private-key-file": "server.key",
                "client-ca-file": "authority.pem",
                "authorization-mode": "RBAC",
                "anonymous-auth": "false",
                "service-cluster-ip-range": "10.96.0.0/16",
                # Nobody reaches a service address here; the default would ask for one on 127.0.0.1.
                "endpoint-reconciler-type": "none",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": "accounts.key",
                "service-account-signing-key-file": "accounts.key",
            },
        )
        self._wait("kube-apiserver", lambda: self._answers(f"{self.address}/readyz"))

    def _controllers(self) -> None:
        write_secret(
            self.folder / "controllers.kubeconfig",
            self.kubeconfig("system:kube-controller-manager", ()).encode(),
        )
        port = _free_port()
        self._spawn(
            "kube-controller-manager",
            cache() / "kube-controller-manager",
            {
                "kubeconfig": "controllers.kubeconfig",
                "bind-address": LOOPBACK,
                "secure-port": port,
                "port": 0,
                "leader-elect": "false",
                "use-service-account-credentials": "true",
                "service-account-private-key-file": "accounts.key",
                "root-ca-file": "authority.pem",
                "controllers": "namespace,resourcequota,serviceaccount,serviceaccount-token,garbagecollector",
                "resource-quota-sync-period": "5s",
            },
        )

    def _answers(self, url: str) -> bool:
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        certificate, key = self.authority.issue(*_ADMIN)
        both = self.folder / "probe.pem"
        write_secret(both, certificate + key)
        context.load_cert_chain(both)
        try:
            with urllib.request.urlopen(url, context=context, timeout=2) as answer:  # noqa: S310  https only
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> ApiServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def main() -> int:
    """Run one until told to end; its kubeconfig's path is the only line on stdout."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    build("kube-apiserver", *sys.argv[1:])
    started = time.monotonic()
    with ApiServer() as server:
        print(server.folder / "kubeconfig", flush=True)
        print(f"-----> ready in {time.monotonic() - started:.1f} s; Ctrl-C ends it", file=sys.stderr)
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
