"""The cell chart as Helm renders it for old and new clusters. No cluster is asked."""

from __future__ import annotations

import copy
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from cells.specification.parser import LARGEST_FILE
from dataplane.drivers.interface import Quota
from dataplane.drivers.kubernetes import Site
from dataplane.drivers.kubernetes.driver import CHART, values
from dataplane.drivers.kubernetes.helm import executable
from dataplane.drivers.kubernetes.workloads import workload
from delivery.run_actions import MOST_WORDS
from tests.cluster import cell
from tests.dataplane.drivers.test_pods import entry, http

VERSIONS = ("1.20.0", "1.25.0", "1.31.0")
EXAMPLE = yaml.safe_load((CHART / "ci" / "example-values.yaml").read_text())


def render(given: dict[str, Any], version: str = "1.31.0", *options: str) -> list[dict[str, Any]]:
    """Raises ``CalledProcessError``."""
    command = [
        executable(),
        "template",
        "x",
        str(CHART),
        "--kube-version",
        version,
        "--values",
        "-",
        *options,
    ]
    done = subprocess.run(command, input=yaml.safe_dump(given), text=True, capture_output=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def example(version: str) -> list[dict[str, Any]]:
    return render(EXAMPLE, version)


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in documents if item["kind"] == kind}


def pods(version: str) -> dict[str, dict[str, Any]]:
    found = of_kind(example(version), "Deployment")
    return {name: item["spec"]["template"]["spec"] for name, item in found.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_replica_is_a_deployment_of_one_pod(version: str) -> None:
    found = of_kind(example(version), "Deployment")
    assert set(found) == {"r12", "r13"}
    for name, item in found.items():
        assert item["spec"]["replicas"] == 1
        assert item["spec"]["strategy"] == {"type": "Recreate"}
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert item["spec"]["selector"]["matchLabels"] == {"cytoplane.dev/replica": name}
        assert labels["cytoplane.dev/replica"] == name
        assert item["metadata"]["namespace"] == EXAMPLE["namespace"]


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_can_do_nothing_that_pod_security_would_refuse(version: str) -> None:
    """The restricted standard, held by the chart too: a cluster before 1.23 doesn't."""
    for spec in pods(version).values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])
        for container in (*spec["initContainers"], *spec["containers"]):
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["allowPrivilegeEscalation"] is context["privileged"] is False
            assert context["readOnlyRootFilesystem"] is context["runAsNonRoot"] is True
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}
            assert "ports" not in container


@pytest.mark.parametrize("version", VERSIONS)
def test_probes_names_secrets_and_the_check_are_what_was_given(version: str) -> None:
    web, jobs = pods(version)["r12"], pods(version)["r13"]
    probe = web["containers"][0]["readinessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": 8080, "scheme": "HTTP"}
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (2, 3)
    assert "readinessProbe" not in jobs["containers"][0]
    assert web["dnsPolicy"] == "None"
    assert web["dnsConfig"]["nameservers"] == EXAMPLE["dns"]["servers"]
    assert web["imagePullSecrets"] == [{"name": "pull"}]
    assert web["containers"][0]["envFrom"] == [{"secretRef": {"name": "env-r12"}}]
    assert web["initContainers"][0]["image"] == EXAMPLE["check"]["image"]
    assert web["hostname"] == "web-r12"


@pytest.mark.parametrize(
    ("version", "api"), [("1.20.0", "policy/v1beta1"), ("1.25.0", "policy/v1"), ("1.31.0", "policy/v1")]
)
def test_disruption_budgets_are_of_the_api_that_the_cluster_has(version: str, api: str) -> None:
    found = of_kind(example(version), "PodDisruptionBudget")
    assert set(found) == {"keep-web", "keep-jobs"}
    assert {item["apiVersion"] for item in found.values()} == {api}


def test_the_longest_command_and_path_that_the_platform_takes_are_taken() -> None:
    """One that the chart refuses would keep the whole cell from following."""
    given = copy.deepcopy(EXAMPLE)
    given["workloads"][0] |= {"command": [f"$(CYTOPLANE_ARGUMENT_{n})" for n in range(MOST_WORDS)]}
    given["workloads"][0]["probe"]["path"] = path = "/" + "x" * (LARGEST_FILE - 1)
    container = of_kind(render(given), "Deployment")["r12"]["spec"]["template"]["spec"]["containers"][0]
    assert len(container["command"]) == MOST_WORDS
    assert container["readinessProbe"]["httpGet"]["path"] == path


def test_users_of_their_own_only_where_they_are_asked_for_and_offered() -> None:
    asked = {**EXAMPLE, "userNamespaces": True}
    for given, version, wanted in (
        (EXAMPLE, "1.31.0", None),
        (asked, "1.31.0", False),
        (asked, "1.25.0", None),
    ):
        spec = of_kind(render(given, version), "Deployment")["r12"]["spec"]["template"]["spec"]
        assert spec.get("hostUsers") is wanted


def test_the_second_layer_lets_cells_and_the_platform_pass_and_no_private_network() -> None:
    policy = of_kind(example("1.31.0"), "NetworkPolicy")["platform"]["spec"]
    insiders = [
        {"namespaceSelector": {"matchLabels": {"app.kubernetes.io/part-of": "cytoplane"}}},
        {"ipBlock": {"cidr": "10.64.0.0/16"}},
        {"ipBlock": {"cidr": "fd63:7970:0:1::/64"}},
    ]
    assert policy["ingress"] == [{"from": insiders}]
    assert policy["egress"][0]["to"][:3] == insiders
    world = policy["egress"][0]["to"][3]["ipBlock"]
    assert world == {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}
    made = values(cell(), Site(networks=("10.64.0.0/16",), opened=("10.1.0.0/16",)))["reach"]
    assert {"cidr": "10.1.0.0/16"} in made["outside"]
    assert "platform" not in of_kind(render({**EXAMPLE, "reach": {"platform": []}}), "NetworkPolicy")


def test_without_what_may_be_left_out() -> None:
    bare = {key: EXAMPLE[key] for key in ("namespace", "cell", "quota", "limits")}
    assert not of_kind(render(bare), "Deployment")
    given = {**bare, "workloads": EXAMPLE["workloads"]}
    spec = of_kind(render(given), "Deployment")["r12"]["spec"]["template"]["spec"]
    assert not {"initContainers", "imagePullSecrets", "dnsConfig", "priorityClassName"} & spec.keys()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("name", "web"),
        ("name", "r12\nkind: Secret"),
        ("image", "x y"),
        ("image", "$(reboot)"),
        ("component", "Web"),
        ("environment", "sh.helm.release.v1.x.v1"),
        ("user", 0),
        ("probe", {"type": "exec"}),
        ("hostPath", "/"),
    ],
)
def test_the_schema_refuses_what_no_replica_can_be(place: str, value: Any) -> None:
    given = copy.deepcopy(EXAMPLE)
    given["workloads"][0][place] = value
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render(given)
    assert "don't meet the specifications" in caught.value.stderr


def test_words_of_people_stay_words() -> None:
    """Whatever a command or a path holds arrives as it is, and nothing of it becomes YAML."""
    nasty = "echo \"a: b\" '{{ .Values }}' $HOME $(id) `id` #\n- x: [}"
    path = '/a?b="c": d\n'
    run = entry(1, ["/bin/sh", "-c", nasty], {**http(), "path": path})
    place = cell()
    given = values(type(place)(**{**vars(place), "endpoints": (run,)}), Site(registry="127.0.0.1:5001"))
    container = of_kind(render(given), "Deployment")["r1"]["spec"]["template"]["spec"]["containers"][0]
    # Kubernetes reads `$$` as `$`.
    assert container["command"][2].replace("$$", "$") == nasty
    assert container["readinessProbe"]["httpGet"]["path"] == path


def test_what_an_operator_opens_and_what_a_plan_allows_restarts_nothing() -> None:
    place = cell()
    running = type(place)(**{**vars(place), "endpoints": (entry(1, "sleep 1"), entry(2, "sleep 1"))})
    larger = type(place)(**{**vars(running), "quota": Quota(400, 64000, 65536)})
    opened = Site(networks=("10.64.0.0/16",), opened=("10.1.0.0/16",))
    first, *others = (
        of_kind(render(values(one, site)), "Deployment")
        for one, site in ((running, Site()), (running, opened), (larger, opened))
    )
    assert set(first) == {"r1", "r2"} and others == [first, first]


def test_values_hold_nothing_secret() -> None:
    run = entry(1, "sleep 1")
    run["process"]["environment"] = {"PASSWORD": "swordfish"}
    place = cell()
    whole = type(place)(**{**vars(place), "endpoints": (run,), "pull": "s3cret-t0ken"})
    text = str(values(whole, Site(registry="127.0.0.1:5001"))) + repr(whole)
    assert "swordfish" not in text
    assert "s3cret" not in text


def test_amounts_are_whole_units_that_are_never_less_than_declared() -> None:
    run = entry(1, "sleep 1", {**http(), "interval": 0.4, "timeout": 0.2})
    run["process"]["limits"] = {"memory": 64 * 2**20 + 1, "cpu": 0.25, "pids": 1}
    made = workload(run, Site())
    assert made["limits"] == {"cpu": 250, "memory": 65}
    assert made["requests"] == {"cpu": 25, "memory": 65}
    assert (made["probe"]["interval"], made["probe"]["timeout"]) == (1, 1)
