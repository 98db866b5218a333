"""The control plane's chart as it is rendered: for old and new Kubernetes, with good values and bad ones."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from dataplane.drivers.kubernetes import helm
from tests.infra.charts.release import CHART, render

VERSIONS = ("1.20.2", "1.25.0", "1.31.0")
EXAMPLE: dict[str, Any] = yaml.safe_load((CHART / "ci" / "example-values.yaml").read_text())
#: Kind of workload → those that the example's release has.
WORKLOADS = {
    "Deployment": {"cy-web", "cy-worker", "cy-beat", "cy-registry"},
    "Job": {"cy-keys", "cy-migrations"},
}


def values(**more: Any) -> dict[str, Any]:
    """The example's values, changed in some of their parts."""
    found = copy.deepcopy(EXAMPLE)
    for name, value in more.items():
        merged = {**found.get(name, {}), **value} if isinstance(value, dict) else value
        found[name] = merged
    return found


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod specification of every workload."""
    for each in objects:
        if each["kind"] in WORKLOADS:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@pytest.fixture(scope="module", params=VERSIONS)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(EXAMPLE, request.param)


def test_lint_finds_nothing() -> None:
    command = [
        helm.executable(),
        "lint",
        "--strict",
        str(CHART),
        "--values",
        str(CHART / "ci/example-values.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_parts_are_there(objects: list[dict[str, Any]]) -> None:
    assert {kind: set(of_kind(objects, kind)) for kind in WORKLOADS} == WORKLOADS


def test_nothing_has_any_privilege(objects: list[dict[str, Any]]) -> None:
    for name, spec in pods(objects):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, container["name"]
            assert security["readOnlyRootFilesystem"] is True, container["name"]
            assert security["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert security.get("runAsUser", 1) > 0, container["name"]
            assert {"requests", "limits"} <= set(container["resources"]), container["name"]
            assert all("hostPort" not in port for port in container.get("ports", []))
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}, name


def test_only_the_job_that_makes_keys_has_rights_and_only_while_it_runs(
    objects: list[dict[str, Any]],
) -> None:
    for name, spec in pods(objects):
        assert spec["automountServiceAccountToken"] is (name == "cy-keys")
    assert not of_kind(objects, "ClusterRole")
    roles = of_kind(objects, "Role")
    assert set(roles) == set(of_kind(objects, "RoleBinding")) == {"cy-keys"}
    assert roles["cy-keys"]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["cy-keys", "cy-registry-keys"],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    ]
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        notes = of_kind(objects, kind)["cy-keys"]["metadata"]["annotations"]
        assert "hook-succeeded" in notes["helm.sh/hook-delete-policy"]


def test_the_authoritys_key_is_where_certificates_are_signed_and_nowhere_else(
    objects: list[dict[str, Any]],
) -> None:
    mounting: dict[str, set[str]] = {}
    for name, spec in pods(objects):
        for volume in spec["volumes"]:
            if volume.get("secret", {}).get("secretName") != "cy-keys":
                continue
            files = {item["key"] for item in volume["secret"].get("items", [{"key": "everything"}])}
            for container in containers(spec):
                if any(mount["name"] == volume["name"] for mount in container["volumeMounts"]):
                    mounting[f"{name}/{container['name']}"] = files
    assert mounting == {
        "cy-web/files": {"everything"},
        "cy-web/web": {"everything"},
        "cy-worker/worker": {"master.key", "django.key"},
    }


def test_keys_and_migrations_come_before_everything_and_in_this_order(objects: list[dict[str, Any]]) -> None:
    jobs = of_kind(objects, "Job")
    for job in jobs.values():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    weights = {name: int(job["metadata"]["annotations"]["helm.sh/hook-weight"]) for name, job in jobs.items()}
    assert weights["cy-keys"] < weights["cy-migrations"] < 0


def test_every_long_running_container_is_probed(objects: list[dict[str, Any]]) -> None:
    for name, deployment in of_kind(objects, "Deployment").items():
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= set(container), (name, container["name"])
    [web, agents] = of_kind(objects, "Deployment")["cy-web"]["spec"]["template"]["spec"]["containers"]
    assert web["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert agents["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_passwords_are_only_ever_named(objects: list[dict[str, Any]]) -> None:
    for _, spec in pods(objects):
        for container in containers(spec):
            for variable in container.get("env", []):
                if variable["name"].endswith("PASSWORD"):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}


def test_what_no_policy_names_is_closed_for_every_pod(objects: list[dict[str, Any]]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    everything = policies["cy-nothing"]["spec"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything and "egress" not in everything
    templates = [each["spec"]["template"] for each in objects if each["kind"] in WORKLOADS]
    for template in templates:
        wanted = everything["podSelector"]["matchLabels"].items()
        assert wanted <= template["metadata"]["labels"].items()
    # The registry is for web alone and reaches nobody.
    [peer] = policies["cy-registry"]["spec"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "web"


def test_metadata_services_are_out_of_reach(objects: list[dict[str, Any]]) -> None:
    for name, policy in of_kind(objects, "NetworkPolicy").items():
        for rule in policy["spec"].get("egress") or []:
            for peer in rule.get("to", []):
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    assert peer["ipBlock"]["except"] == ["169.254.0.0/16"], name


@pytest.mark.parametrize(
    ("version", "api"), [("1.20.2", "policy/v1beta1"), ("1.21.0", "policy/v1"), ("1.31.0", "policy/v1")]
)
def test_budgets_are_in_the_clusters_words(version: str, api: str) -> None:
    budgets = of_kind(render(EXAMPLE, version), "PodDisruptionBudget")
    assert {each["apiVersion"] for each in budgets.values()} == {api}
    assert set(budgets) == {"cy-web", "cy-worker", "cy-beat"}


def test_one_replica_has_no_budget_that_would_hold_a_node() -> None:
    assert "cy-web" not in of_kind(render(values(web={"replicas": 1})), "PodDisruptionBudget")


def test_storage_of_one_node_brings_all_who_use_it_there() -> None:
    objects = render(values(repositories={"accessMode": "ReadWriteOnce"}))
    for name in ("cy-web", "cy-worker"):
        template = of_kind(objects, "Deployment")[name]["spec"]["template"]
        [term] = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert of_kind(objects, "PersistentVolumeClaim")["cy-repositories"]["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]


def test_storage_and_keys_outlive_the_release(objects: list[dict[str, Any]]) -> None:
    for claim in of_kind(objects, "PersistentVolumeClaim").values():
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "cy-keys" not in of_kind(objects, "Secret")


def test_a_registry_of_ones_own_takes_the_place_of_ours() -> None:
    external = {"url": "https://images.example.com:5443", "existingSecret": "images", "caSecret": "images-ca"}
    objects = render(values(registry={"enabled": False, "external": external}))
    assert not [name for name in of_kind(objects, "Deployment") if "registry" in name]
    [files] = of_kind(objects, "Deployment")["cy-web"]["spec"]["template"]["spec"]["initContainers"]
    environment = {each["name"]: each for each in files["env"]}
    assert environment["CYTOPLANE_REGISTRY_URL"]["value"] == "https://images.example.com:5443"
    policy = of_kind(objects, "NetworkPolicy")["cy-web"]["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {5443}


def test_with_keys_of_ones_own_no_account_has_rights() -> None:
    objects = render(values(keys={"existingSecret": "mine"}, registry={"enabled": False}))
    assert not of_kind(objects, "Role")
    assert set(of_kind(objects, "Job")) == {"cy-migrations"}


def test_without_policies_there_are_none() -> None:
    assert not of_kind(render(values(networkPolicy={"enabled": False})), "NetworkPolicy")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"portal": {"url": "portal.example.com"}}, "portal.url"),
        ({"portal": {"url": "https://portal.example.com/cytoplane"}}, "portal.url"),
        ({"agents": {"names": []}}, "agents.names"),
        ({"net": 16}, "net"),
        ({"web": {"replicas": 0}}, "web.replicas"),
        ({"users": {"platform": 0, "gateway": 2, "registry": 3}}, "users.platform"),
        (
            {"database": {"host": "db.example.com", "existingSecret": "db", "tls": {"mode": "allow"}}},
            "tls.mode",
        ),
        ({"databse": {}}, "databse"),
        ({"applications": {"domain": "example.com"}}, "could set cookies"),
        (
            {"portal": {"url": "https://Portal.Example.com"}, "applications": {"domain": "example.com"}},
            "could set cookies",
        ),
        ({"images": {"controlPlane": "example.com/control-plane"}}, "images.controlPlane"),
        ({"images": {"controlPlane": "example.com/a:1", "registry": ""}}, "images.registry is needed"),
        ({"admin": {"email": "admin@example.com", "existingSecret": ""}}, "admin.existingSecret is needed"),
    ],
)
def test_values_that_cant_work_are_refused_in_words(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        render(values(**wrong))
