"""The Kubernetes driver against a real API server."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from dataplane.drivers import CellState, Denied, Quota, Rejected, Taken, Unreachable
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.driver import CHART
from dataplane.drivers.kubernetes.helm import executable, offers
from dataplane.drivers.kubernetes.records import RELEASES
from infra.kubernetes.certificates import Authority
from tests.cluster import LONGEST, Cluster, cell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
ROOT = Path(__file__).resolve().parents[3]
POLICIES = "networking.k8s.io/v1"


def gone(cluster: Cluster, place) -> None:  # type: ignore[no-untyped-def]
    """Wait until the controllers have emptied the namespace."""
    end = time.monotonic() + 60
    while cluster.driver().remove(place).state != CellState.ABSENT:
        assert time.monotonic() < end, "the namespace doesn't go"
        time.sleep(0.3)


def test_a_cell_is_a_namespace_with_its_quota_and_nothing_allowed(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    assert driver.check().startswith("v1.")
    assert driver.status(place).state == CellState.ABSENT
    status = driver.ensure(place)
    assert (status.state, status.revision, status.problems) == (CellState.READY, 1, ())
    namespace = cluster.namespace(place.location)
    assert namespace is not None
    assert namespace["metadata"]["labels"]["cytoplane.dev/tenant"] == "acme"
    hard = cluster.objects("ResourceQuota", place.location)["plan"]["spec"]["hard"]
    assert hard["pods"] == "80"
    assert hard["limits.cpu"] == hard["requests.cpu"] == "32"
    assert hard["limits.memory"] == hard["requests.memory"] == "32Gi"
    assert hard["services.nodeports"] == hard["services.loadbalancers"] == "0"
    policies = cluster.objects("NetworkPolicy", place.location, POLICIES)
    assert set(policies) == {"deny-ingress", "deny-egress"}
    for name, direction in (("deny-ingress", "Ingress"), ("deny-egress", "Egress")):
        assert policies[name]["spec"] == {"podSelector": {}, "policyTypes": [direction]}
    assert (
        cluster.objects("ServiceAccount", place.location)["workload"]["automountServiceAccountToken"] is False
    )
    limit = cluster.objects("LimitRange", place.location)["containers"]["spec"]["limits"][0]
    assert (limit["default"]["memory"], limit["max"]["cpu"]) == ("256Mi", "16")


def test_pods_are_held_to_the_restricted_standard_where_the_cluster_knows_it() -> None:
    values = yaml.safe_dump(
        {
            "namespace": "cell-7-1f3a9c20",
            "cell": {"number": 7, "tenant": "acme", "project": "shop", "environment": "production"},
            "quota": {"pods": 1, "cpu": 1, "memory": 1},
            "limits": {"cpu": 1, "memory": 1, "largest": {"cpu": 1, "memory": 1}},
        }
    )
    found = {}
    for version in ("1.20.0", "1.30.0"):
        command = [executable(), "template", "x", str(CHART), "--kube-version", version, "--values", "-"]
        rendered = subprocess.run(command, input=values, text=True, capture_output=True, check=True).stdout
        documents = [d for d in yaml.safe_load_all(rendered) if d]
        found[version] = next(d for d in documents if d["kind"] == "Namespace")["metadata"]["labels"]
    assert found["1.30.0"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not any(label.startswith("pod-security") for label in found["1.20.0"])


def test_the_chart_is_sound() -> None:
    command = [
        executable(),
        "lint",
        str(CHART),
        "--strict",
        "--values",
        str(CHART / "ci" / "example-values.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def versions(cluster: Cluster, location: str) -> dict[str, str]:
    kinds = ("LimitRange", "ServiceAccount")
    found = {kind + name: o for kind in kinds for name, o in cluster.objects(kind, location).items()}
    found |= cluster.objects("NetworkPolicy", location, POLICIES)
    return {
        name: item["metadata"]["resourceVersion"] for name, item in found.items() if "default" not in name
    }


def test_ensuring_again_touches_nothing(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    before = versions(cluster, place.location)
    assert driver.ensure(place).revision == 1
    assert versions(cluster, place.location) == before


def test_a_run_of_helm_asks_once_what_the_cluster_offers(cluster: Cluster) -> None:
    place, driver, log = cell(), cluster.driver(), cluster.server.folder / "kube-apiserver.log"
    begun = log.stat().st_size
    with cluster.api() as api:
        # From level 3 on the server writes a line for each request.
        api._send("PUT", "/debug/flags/v", 3)
        driver.ensure(place)
        api._send("PUT", "/debug/flags/v", 0)
    lines = log.read_text(errors="replace")[begun:].splitlines()
    own = [line for line in lines if "Helm/" in line and f'verb="GET" URI="/apis/{POLICIES}?' in line]
    assert len(own) == 1


def test_what_killed_workers_left_of_a_run_of_helm_goes_with_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, running = tmp_path / "cytoplane-helm-left", tmp_path / "cytoplane-helm-running"
    for folder in (left, running):
        (folder / "discovery").mkdir(parents=True)
    os.utime(left, (0, 0))
    with offers() as own:
        assert {str(path) for path in tmp_path.iterdir()} == {own, str(running)}
    assert list(tmp_path.iterdir()) == [running]


def test_what_is_as_it_should_be_is_compared_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    place, driver, compared = cell(), cluster.driver(), []
    driver.ensure(place)
    really = Api.would_be

    def noting(self: Api, document: Object) -> Object:
        compared.append(document["metadata"]["name"])
        return really(self, document)

    monkeypatch.setattr(Api, "would_be", noting)
    assert driver.ensure(place).state == CellState.READY
    assert sorted(compared) == sorted(set(compared))


def test_another_quota_is_an_upgrade(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    larger = cell(location=place.location, quota=Quota(90, 40000, 65536))
    assert driver.status(larger).state == CellState.DRIFTED
    assert (driver.ensure(larger).state, driver.status(larger).revision) == (CellState.READY, 2)
    assert cluster.objects("ResourceQuota", place.location)["plan"]["spec"]["hard"]["pods"] == "90"


def _change(cluster: Cluster, location: str, what: str) -> None:
    with cluster.api() as api:
        if what == "a policy deleted":
            api.delete(POLICIES, "NetworkPolicy", location, "deny-egress")
        elif what == "a policy opened":
            found = api.get(POLICIES, "NetworkPolicy", location, "deny-ingress")
            assert found is not None
            api.replace(
                {
                    "kind": "NetworkPolicy",
                    "apiVersion": POLICIES,
                    **found,
                    "spec": {**found["spec"], "ingress": [{}]},
                }
            )
        elif what == "a policy added":
            api.apply(
                {
                    "apiVersion": POLICIES,
                    "kind": "NetworkPolicy",
                    "metadata": {"name": "open", "namespace": location},
                    "spec": {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]},
                }
            )
        elif what == "the quota raised":
            found = api.get("v1", "ResourceQuota", location, "plan")
            assert found is not None
            found["spec"]["hard"]["pods"] = "100000"
            api.replace({**found, "kind": "ResourceQuota", "apiVersion": "v1"})
        elif what == "tokens mounted":
            found = api.get("v1", "ServiceAccount", location, "workload")
            assert found is not None
            api.replace(
                {**found, "kind": "ServiceAccount", "apiVersion": "v1", "automountServiceAccountToken": True}
            )
        else:
            api.delete("v1", "LimitRange", location, "containers")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a policy deleted", "NetworkPolicy deny-egress is missing."),
        ("a policy opened", "NetworkPolicy deny-ingress was changed."),
        ("a policy added", "NetworkPolicy open isn't the platform's."),
        ("the quota raised", "ResourceQuota plan was changed."),
        ("tokens mounted", "ServiceAccount workload was changed."),
        ("limits deleted", "LimitRange containers is missing."),
    ],
)
def test_drift_is_said_and_repaired(cluster: Cluster, what: str, said: str) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    _change(cluster, place.location, what)
    assert (driver.status(place).state, driver.status(place).problems) == (CellState.DRIFTED, (said,))
    assert driver.ensure(place).state == CellState.READY
    policies = cluster.objects("NetworkPolicy", place.location, POLICIES)
    assert set(policies) == {"deny-ingress", "deny-egress"}
    assert not any("ingress" in policy["spec"] for policy in policies.values())
    assert (
        cluster.objects("ServiceAccount", place.location)["workload"]["automountServiceAccountToken"] is False
    )


def test_a_strangers_namespace_of_that_name_is_left_alone(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    with cluster.api() as api:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.location}})
    for call in (driver.ensure, driver.status):
        with pytest.raises(Taken):
            call(place)
    assert driver.remove(place).state == CellState.ABSENT
    assert not cluster.objects("ResourceQuota", place.location)
    namespace = cluster.namespace(place.location)
    assert namespace is not None
    assert "deletionTimestamp" not in namespace["metadata"]


def _mark(cluster: Cluster, location: str, status: str) -> None:
    """Let Helm's record of the first revision say that its operation didn't end."""
    with cluster.api() as api:
        found = api.get("v1", "Secret", RELEASES, f"sh.helm.release.v1.{location}.v1")
        assert found is not None
        release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(found["data"]["release"]))))
        release["info"]["status"] = status
        packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
        found["data"]["release"] = packed
        found["metadata"]["labels"]["status"] = status
        api.replace({**found, "kind": "Secret", "apiVersion": "v1"})


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "uninstalling", "failed"])
def test_it_goes_on_where_helm_was_interrupted(cluster: Cluster, status: str) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    _mark(cluster, place.location, status)
    with cluster.api() as api:
        api.delete(POLICIES, "NetworkPolicy", place.location, "deny-egress")
    before = cluster.namespace(place.location)
    assert driver.status(place).state == CellState.INTERRUPTED
    assert driver.ensure(place).state == CellState.READY
    after = cluster.namespace(place.location)
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] == after["metadata"]["uid"], "what was there is taken over"


def test_a_lost_record_is_made_again(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    with cluster.api() as api:
        api.delete("v1", "Secret", RELEASES, f"sh.helm.release.v1.{place.location}.v1")
    assert driver.status(place).state == CellState.INTERRUPTED
    assert driver.ensure(place).state == CellState.READY


_CHILD = """
import sys
from dataplane.drivers import PlacedCell, Quota
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
driver = Kubernetes(Kubeconfig.parse(sys.stdin.read()))
place = PlacedCell(7, sys.argv[1], "acme", "shop", "production", Quota(80, 32000, 32768))
print("go", flush=True)
getattr(driver, sys.argv[2])(place)
"""


def _child(cluster: Cluster, location: str, call: str) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, location, call],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(cluster.text)
    child.stdin.close()
    assert child.stdout.readline() == "go\n"
    return child


def _until(child: subprocess.Popen, seen) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < end and not seen():
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize("moment", ["record", "namespace", "policies"])
def test_a_worker_killed_in_an_installation_is_followed_by_the_next(cluster: Cluster, moment: str) -> None:
    place, driver = cell(), cluster.driver()
    child = _child(cluster, place.location, "ensure")
    with cluster.api() as api:
        sights = {
            "record": lambda: api.get("v1", "Secret", RELEASES, f"sh.helm.release.v1.{place.location}.v1"),
            "namespace": lambda: api.get("v1", "Namespace", "", place.location),
            "policies": lambda: api.get(POLICIES, "NetworkPolicy", place.location, "deny-egress"),
        }
        _until(child, sights[moment])
    assert driver.ensure(place).state == CellState.READY
    assert set(cluster.objects("NetworkPolicy", place.location, POLICIES)) == {"deny-ingress", "deny-egress"}


def test_a_worker_killed_in_a_removal_is_followed_by_the_next(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    child = _child(cluster, place.location, "remove")
    with cluster.api() as api:
        _until(child, lambda: api.get("v1", "ResourceQuota", place.location, "plan") is None)
    gone(cluster, place)
    assert cluster.namespace(place.location) is None
    assert driver.status(place).state == CellState.ABSENT


def test_removing_ends_in_nothing_left_and_may_be_repeated(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    assert driver.remove(place).state == CellState.ABSENT
    driver.ensure(place)
    assert driver.remove(place).state in (CellState.REMOVING, CellState.ABSENT)
    gone(cluster, place)
    assert cluster.namespace(place.location) is None
    assert not [name for name in cluster.objects("Secret", RELEASES) if place.location in name]
    assert driver.remove(place).state == CellState.ABSENT


def test_a_deleted_namespace_comes_back_whole(cluster: Cluster) -> None:
    place, driver = cell(), cluster.driver()
    driver.ensure(place)
    with cluster.api() as api:
        api.delete("v1", "Namespace", "", place.location)
    end = time.monotonic() + 60
    while driver.status(place).state == CellState.REMOVING and time.monotonic() < end:
        time.sleep(0.3)
    assert driver.status(place).state == CellState.DRIFTED
    assert driver.ensure(place).state == CellState.READY


def test_a_server_that_answers_nothing_is_unreachable(cluster: Cluster) -> None:
    cluster.server.pause()
    try:
        with pytest.raises(Unreachable) as caught:
            cluster.driver().ensure(cell())
    finally:
        cluster.server.resume()
    assert caught.value.passing


def test_nobody_there_is_unreachable(cluster: Cluster) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        text = cluster.text.replace(cluster.server.address, f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(Unreachable):
            Kubernetes(Kubeconfig.parse(text)).check()


def _with(cluster: Cluster, **user: str) -> Kubernetes:
    document = yaml.safe_load(cluster.text)
    document["users"][0]["user"] = user
    return Kubernetes(Kubeconfig.parse(yaml.safe_dump(document)))


def test_wrong_credentials_are_denied_and_not_repeated_in_the_sentence(cluster: Cluster) -> None:
    certificate, key = Authority("somebody else").issue("admin", ("system:masters",))
    foreign = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    drivers = [_with(cluster, token="hunter2-hunter2"), _with(cluster, **foreign)]
    drivers.append(Kubernetes(Kubeconfig.parse(cluster.server.kubeconfig("nobody", ("nothing",)))))
    for driver in drivers:
        for call in (driver.check, lambda d=driver: d.ensure(cell())):
            with pytest.raises(Denied) as caught:
                call()
            assert "hunter2" not in str(caught.value)
            assert not caught.value.passing


def test_a_server_of_another_authority_is_denied(cluster: Cluster) -> None:
    document = yaml.safe_load(cluster.text)
    other = base64.b64encode(Authority("other").pem).decode()
    document["clusters"][0]["cluster"]["certificate-authority-data"] = other
    with pytest.raises(Denied):
        Kubernetes(Kubeconfig.parse(yaml.safe_dump(document))).check()


def test_what_the_chart_refuses_is_rejected(cluster: Cluster, tmp_path: Path) -> None:
    broken = tmp_path / "cell"
    (broken / "templates").mkdir(parents=True)
    (broken / "Chart.yaml").write_text("apiVersion: v2\nname: cell\nversion: 1.0.0\n")
    (broken / "templates" / "x.yaml").write_text('{{ fail "no such thing" }}\n')
    with pytest.raises(Rejected, match="no such thing"):
        Kubernetes(cluster.kubeconfig, broken).ensure(cell())


def test_helm_is_found_beside_the_interpreter(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    executable.cache_clear()
    assert os.access(executable(), os.X_OK)
    assert cluster.driver().status(cell()).state == CellState.ABSENT
