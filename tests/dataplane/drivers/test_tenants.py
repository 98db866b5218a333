"""A tenant with a kubeconfig for its own namespace: what it tries is refused, or changes nothing.

Pods that it makes need a node, and are the agent's to refuse (tests/dataplane/agent/pods).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from dataplane.drivers import CellState, Denied, PlacedCell, Rejected
from dataplane.drivers.kubernetes import Kubeconfig
from dataplane.drivers.kubernetes import api as api_module
from dataplane.drivers.kubernetes.api import Api
from dataplane.drivers.kubernetes.driver import CHART
from tests.cluster import LONGEST, Cluster, cell, cluster  # noqa: F401  a fixture
from tests.dataplane.drivers.test_pods import entry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
RBAC = "rbac.authorization.k8s.io/v1"
KINDS_TRIED = {
    "Role": ("roles", True),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "ClusterRole": ("clusterroles", False),
}


@dataclass
class Tenant:
    """Two people of the tenant: one with the role of the docs, one with Kubernetes' own ``edit``."""

    cluster: Cluster
    cell: PlacedCell
    careful: Api
    editor: Api

    def document(self, version: str, kind: str, name: str, namespace: str = "", **content: Any) -> dict:
        metadata = {"name": name, "namespace": namespace or self.cell.location}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}

    def pod(self, **spec: Any) -> dict:
        container = {"name": "x", "image": "x", **spec.pop("container", {})}
        return self.document("v1", "Pod", "mine", spec={"containers": [container], **spec})


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds that the driver has no business with."""
    monkeypatch.setattr(api_module, "SEEN", api_module.SEEN | KINDS_TRIED)


@pytest.fixture(scope="module")
def tenant(cluster: Cluster) -> Iterator[Tenant]:
    place = cell()
    cluster.driver().ensure(place)
    role = yaml.safe_load((CHART / "tenant-role.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch, cluster.api() as api:
        patch.setattr(api_module, "SEEN", api_module.SEEN | KINDS_TRIED)
        api.apply(role)
        # What `edit` and `view` are put together from; nothing here puts it together.
        for person, bound in (
            ("careful", "cytoplane-tenant"),
            ("editor", "system:aggregate-to-edit"),
            ("editor", "system:aggregate-to-view"),
        ):
            subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": person}
            name = f"{person}-{bound.rpartition('-')[2]}"
            api.apply(
                {
                    "apiVersion": RBAC,
                    "kind": "RoleBinding",
                    "metadata": {"name": name, "namespace": place.location},
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "ClusterRole",
                        "name": bound,
                    },
                    "subjects": [subject],
                }
            )
    people = [Api(Kubeconfig.parse(cluster.server.kubeconfig(name, ()))) for name in ("careful", "editor")]
    with people[0], people[1]:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                people[0].list("v1", "Pod", place.location)
                people[1].list("v1", "Secret", place.location)
                # The cluster holds nobody to a quota that it hasn't begun to count for, some seconds.
                if cluster.objects("ResourceQuota", place.location)["plan"]["status"].get("used"):
                    break
            except Denied:
                pass
            time.sleep(0.2)
        yield Tenant(cluster, place, *people)


def refused(api: Api, document: dict, words: str) -> None:
    with pytest.raises((Denied, Rejected)) as caught:
        api.create(document)
    assert words in str(caught.value)


def test_the_documented_role_makes_nothing_and_reads_no_secrets(tenant: Tenant) -> None:
    for document in (
        tenant.pod(),
        tenant.pod(volumes=[{"name": "disk", "hostPath": {"path": "/"}}]),
        tenant.pod(hostNetwork=True),
        tenant.pod(container={"securityContext": {"privileged": True}}),
        tenant.document("v1", "ConfigMap", "x"),
        tenant.document("v1", "Secret", "x"),
        tenant.document("v1", "ServiceAccount", "x"),
        tenant.document("v1", "Service", "x", spec={"ports": [{"port": 80}]}),
        tenant.document("apps/v1", "Deployment", "x"),
        tenant.document("networking.k8s.io/v1", "NetworkPolicy", "x", spec={"podSelector": {}}),
        tenant.document(RBAC, "Role", "x", rules=[]),
    ):
        refused(tenant.careful, document, "forbidden")
    assert tenant.careful.list("v1", "Pod", tenant.cell.location) == []
    for version, kind in (("v1", "Secret"), ("v1", "ConfigMap")):
        with pytest.raises(Denied):
            tenant.careful.list(version, kind, tenant.cell.location)
    with pytest.raises(Denied):
        tenant.careful.list("v1", "Pod", "kube-system")
    with pytest.raises(Denied):
        tenant.careful.delete("networking.k8s.io/v1", "NetworkPolicy", tenant.cell.location, "deny-egress")


@pytest.mark.parametrize(
    "spec",
    [
        {"ports": [{"port": 80}]},
        {"ports": [{"port": 53}], "externalIPs": ["192.0.2.1"]},
        {"type": "ExternalName", "externalName": "metadata.example.org"},
        {"type": "NodePort", "ports": [{"port": 80}]},
        {"type": "LoadBalancer", "ports": [{"port": 80}]},
    ],
)
def test_nobody_makes_services_in_a_cell(tenant: Tenant, spec: dict) -> None:
    refused(tenant.editor, tenant.document("v1", "Service", "mine", spec=spec), "exceeded quota")


def test_nobody_takes_a_neighbours_host_by_an_ingress(tenant: Tenant) -> None:
    backend = {"service": {"name": "mine", "port": {"number": 80}}}
    rule = {
        "host": "shop.globex.localhost",
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
    }
    document = tenant.document("networking.k8s.io/v1", "Ingress", "mine", spec={"rules": [rule]})
    refused(tenant.editor, document, "exceeded quota")


def test_rights_end_at_the_namespace(tenant: Tenant) -> None:
    subject = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "editor"}]
    admin = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    for document in (
        tenant.document(RBAC, "RoleBinding", "x", roleRef=admin, subjects=subject),
        tenant.document(RBAC, "ClusterRoleBinding", "x", roleRef=admin, subjects=subject),
        tenant.document("v1", "ConfigMap", "x", namespace="cytoplane-releases"),
        tenant.document("v1", "Secret", "x", namespace="kube-system"),
    ):
        refused(tenant.editor, document, "forbidden")
    for version, kind, name in (("v1", "ResourceQuota", "plan"), ("v1", "LimitRange", "containers")):
        with pytest.raises(Denied):
            tenant.editor.delete(version, kind, tenant.cell.location, name)
    forged = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    with pytest.raises(Denied):
        tenant.editor.merge("v1", "Namespace", "", tenant.cell.location, forged)


def test_accounts_of_a_cell_have_no_rights(tenant: Tenant) -> None:
    """A pod can name any account of its namespace, and whoever may make one its token."""
    place = tenant.cell.location
    tenant.editor.create(tenant.document("v1", "ServiceAccount", "mine"))
    server = tenant.cluster.kubeconfig
    with tenant.cluster.api() as api:
        for account in ("workload", "mine"):
            path = f"/api/v1/namespaces/{place}/serviceaccounts/{account}/token"
            made = api._read(api._send("POST", path, {"spec": {"audiences": []}}))
            token = made["status"]["token"]
            with Api(Kubeconfig(server.server, server.authority, token=token)) as own:
                for kind in ("Pod", "Secret", "Deployment"):
                    version = "apps/v1" if kind == "Deployment" else "v1"
                    with pytest.raises(Denied):
                        own.list(version, kind, place)


def test_what_it_changes_of_the_platforms_is_made_right_again(tenant: Tenant) -> None:
    place, editor = tenant.cell.location, tenant.editor
    running = PlacedCell(**{**vars(tenant.cell), "endpoints": (entry(1, "sleep 100"),)})
    # A thing of its own where a replica will come, which Helm would stumble over.
    labels = {"cytoplane.dev/replica": "r1"}
    squatting = {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b", **labels}},
            "spec": {"containers": [{"name": "x", "image": "x"}]},
        },
    }
    editor.create(tenant.document("apps/v1", "Deployment", "r1", spec=squatting))
    driver = tenant.cluster.driver()
    assert driver.ensure(running).state == CellState.READY
    # What the quota would refuse, made before it counted.
    with tenant.cluster.api() as api:
        quota = api.get("v1", "ResourceQuota", place, "plan")
        assert quota is not None
        api.delete("v1", "ResourceQuota", place, "plan")
        outside = {"type": "ExternalName", "externalName": "metadata.example.org"}
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                api.create(tenant.document("v1", "Service", "early", spec=outside))
                break
            except Denied:
                time.sleep(0.2)
    assert "Service early isn't the platform's." in driver.status(running).problems
    # Policies, environment and the replica itself.
    editor.delete("networking.k8s.io/v1", "NetworkPolicy", place, "deny-ingress")
    editor.delete("v1", "Secret", place, "env-r1")
    editor.merge("apps/v1", "Deployment", place, "r1", {"spec": {"template": {"spec": {"hostPID": True}}}})
    assert driver.status(running).state == CellState.DRIFTED
    assert driver.ensure(running).state == CellState.READY
    with tenant.cluster.api() as api:
        live = api.get("apps/v1", "Deployment", place, "r1")
        assert api.list("v1", "Service", place) == []
        assert api.get("v1", "ResourceQuota", place, "plan")
    assert live is not None
    assert live["spec"]["selector"]["matchLabels"] == labels
    assert "hostPID" not in live["spec"]["template"]["spec"]


def test_a_finalizer_that_nobody_answers_keeps_no_namespace(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    metadata = {"name": "mine", "namespace": place.location, "finalizers": ["example.org/never"]}
    with cluster.api() as api:
        api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    end = time.monotonic() + 60
    while driver.remove(place).state != CellState.ABSENT:
        assert time.monotonic() < end, cluster.namespace(place.location)
        time.sleep(0.5)
    assert cluster.namespace(place.location) is None


def test_an_owner_that_doesnt_exist_takes_nothing_of_the_platforms_along(tenant: Tenant) -> None:
    """The collector deletes what names an owner that isn't there: a way to delete what one may only edit."""
    place = tenant.cell.location
    running = PlacedCell(**{**vars(tenant.cell), "endpoints": (entry(1, "sleep 100"),)})
    driver = tenant.cluster.driver()
    driver.ensure(running)
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "gone",
        "uid": "00000000-0000-0000-0000-000000000001",
    }
    fields = {"metadata": {"ownerReferences": [owner]}}
    tenant.editor.merge("apps/v1", "Deployment", place, "r1", fields)
    end = time.monotonic() + 60
    while "Deployment r1 is missing." not in driver.status(running).problems and time.monotonic() < end:
        time.sleep(0.3)
    assert driver.ensure(running).state == CellState.READY
