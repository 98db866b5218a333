"""Kubeconfigs: what is kept, what is refused, and that nothing secret is shown or left behind."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataplane.drivers.kubernetes import InvalidKubeconfig, Kubeconfig
from dataplane.drivers.kubernetes.memory import memory_file

PEM = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").decode()


def text(user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **more: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://k.example:6443",
                    "certificate-authority-data": PEM,
                    **(cluster or {}),
                },
            }
        ],
        "users": [{"name": "u", "user": {"token": "hunter2"} if user is None else user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
        **more,
    }
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (text(user={"exec": {"command": "/bin/sh"}}), "run a program"),
        (text(user={"auth-provider": {"name": "gcp"}}), "run a program"),
        (text(user={"tokenFile": "/etc/shadow"}), "names a file"),
        (text(user={"client-certificate": "/etc/x", "client-key": "/etc/y"}), "names a file"),
        (text(cluster={"certificate-authority": "/etc/x"}), "names a file"),
        (text(cluster={"insecure-skip-tls-verify": True}), "isn't supported"),
        (text(cluster={"proxy-url": "http://x"}), "isn't supported"),
        (text(user={"token": "hunter2", "as": "root"}), "isn't supported"),
        (text(cluster={"server": "http://k.example"}), "https://"),
        (text(cluster={"server": "https://me:pw@k.example"}), "https://"),
        (text(user={}), "token"),
        (text(user={"client-certificate-data": PEM}), "needs its key"),
        (text(cluster={"certificate-authority-data": "!"}), "PEM"),
        (text(kind="Pod"), "kind: Config"),
        (text(contexts=[]), "context"),
        ("a: [", "YAML"),
        ("x" * 70000, "larger"),
    ],
)
def test_what_would_run_programs_read_files_or_trust_anybody_is_refused(given: str, said: str) -> None:
    with pytest.raises(InvalidKubeconfig, match=said) as caught:
        Kubeconfig.parse(given)
    assert "hunter2" not in str(caught.value)


def test_only_what_is_needed_is_kept() -> None:
    found = Kubeconfig.parse(text(preferences={"colors": True}))
    assert "hunter2" not in repr(found)
    again = Kubeconfig.parse(found.as_yaml())
    assert again == found
    assert set(yaml.safe_load(found.as_yaml())) == {
        "apiVersion", "kind", "clusters", "users", "contexts", "current-context",
    }  # fmt: skip


def test_files_in_memory_end_with_their_context() -> None:
    with memory_file("secret") as path:
        assert Path(path).read_text() == "secret"
        assert str(Path(path).readlink()).startswith("/memfd:")
    assert not Path(path).exists()
