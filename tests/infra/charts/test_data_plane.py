"""The data plane's chart: rendered for old and new clusters, its rights against the table that explains them."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataplane.controller import identity, nodes
from dataplane.controller.rights import ACCOUNT, ROLE
from dataplane.drivers.kubernetes import helm
from dataplane.node import leaving, requests
from dataplane.registry import names
from infra.images import debian, recipe
from tests.infra.charts import tables

CHART = Path(__file__).resolve().parents[3] / "infra" / "charts" / "data-plane"
VERSIONS = ("1.20", "1.25", "1.31")
_NEWER = ["admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"]
#: What may be added to a container that drops all capabilities, and nothing else.
AGENT = {"BPF", "CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN"}
#: What it has beyond these where people may run commands in pods.
COMMANDS = {"KILL", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_PTRACE", "SYS_RESOURCE"}
LAUNCHER = {"SETGID", "SETPCAP", "SETUID", "SYS_ADMIN"}

Object = dict[str, Any]


def rendered(version: str, *options: str, values: Path | None = None) -> subprocess.CompletedProcess[str]:
    newer = _NEWER if version == "1.31" else []
    command = [
        helm.executable(),
        "template",
        "plane",
        str(CHART),
        "--namespace",
        "cytoplane",
        "--kube-version",
        version,
    ]
    command += ["--values", str(values or CHART / "ci/example-values.yaml")]
    command += [word for each in newer for word in ("--api-versions", each)]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@cache
def objects(version: str, *options: str) -> list[Object]:
    done = rendered(version, *options)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def one(kind: str, name: str, version: str = "1.31", *options: str) -> Object:
    found = [o for o in objects(version, *options) if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def containers(version: str = "1.31") -> dict[str, Object]:
    """Of what runs on every node, by name."""
    specs = [one("DaemonSet", name, version)["spec"]["template"]["spec"] for name in ("node", "edge")]
    return {
        each["name"]: each
        for spec in specs
        for each in (*spec.get("initContainers", []), *spec["containers"])
    }


def pods(version: str) -> list[Object]:
    return [
        o["spec"]["template"]["spec"]
        for o in objects(version)
        if o["kind"] in ("DaemonSet", "Deployment", "Job")
    ]


def test_it_is_without_fault_for_helm() -> None:
    command = [helm.executable(), "lint", "--strict", str(CHART), "--namespace", "cytoplane"]
    done = subprocess.run(
        [*command, "--values", str(CHART / "ci/example-values.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_of_the_api_are_those_that_the_cluster_has(version: str) -> None:
    budget = one("PodDisruptionBudget", "controller", version)
    assert budget["apiVersion"] == ("policy/v1beta1" if version == "1.20" else "policy/v1")
    admission = [o for o in objects(version) if o["kind"].startswith("ValidatingAdmissionPolicy")]
    assert len(admission) == (2 if version == "1.31" else 0)


# Rights on the cluster.


def _rules(version: str) -> set[tuple[str, str, str, str]]:
    """(account, where, resources, verbs) of everything that is bound to an account, in the table's words."""
    found = objects(version)
    roles = {
        (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o
        for o in found
        if "rules" in o
    }
    rows = set()
    bound = set()
    for binding in found:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        place = binding["metadata"].get("namespace", "")
        key = (
            binding["roleRef"]["kind"],
            place if binding["roleRef"]["kind"] == "Role" else "",
            binding["roleRef"]["name"],
        )
        bound.add(key)
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount" and subject["namespace"] == "cytoplane"
            rows |= {_row(subject["name"], place or "cluster", rule) for rule in roles[key]["rules"]}
    # The one that is bound later, in the namespaces of cells.
    assert set(roles) - bound == {("ClusterRole", "", ROLE)}
    return rows | {
        _row("controller", "a cell's namespace", rule) for rule in roles["ClusterRole", "", ROLE]["rules"]
    }


def _row(account: str, where: str, rule: Object) -> tuple[str, str, str, str]:
    names = f" ({', '.join(rule['resourceNames'])})" if "resourceNames" in rule else ""
    return account, where, ", ".join(rule["resources"]) + names, ", ".join(rule["verbs"])


@pytest.mark.parametrize("version", VERSIONS)
def test_each_right_is_in_the_table_with_its_reason_and_no_other(version: str) -> None:
    table = tables.read(CHART / "README.md", "account")
    assert all(row[-1] for row in table), "a right without a reason"
    assert _rules(version) == {tuple(row[:4]) for row in table}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_right_is_for_everything_and_secrets_only_where_they_are_its_own(version: str) -> None:
    for item in objects(version):
        for rule in item.get("rules", []) if "Role" in item["kind"] else []:
            assert "*" not in json.dumps(rule)
            assert not {"escalate", "impersonate"} & set(rule["verbs"])
            if "bind" in rule["verbs"]:
                assert rule["resourceNames"] == [ROLE]
            if "secrets" in rule["resources"] and item["metadata"]["name"] != ROLE:
                assert item["kind"] == "Role"
                assert item["metadata"]["namespace"] in ("cytoplane", "cytoplane-releases")


def test_what_the_controller_binds_is_what_the_chart_has() -> None:
    assert one("ClusterRole", ROLE)
    assert one("ServiceAccount", "controller")["metadata"]["name"] == ACCOUNT
    policy = one("ValidatingAdmissionPolicy", "cytoplane-controller")
    assert "^cell-[1-9][0-9]{0,18}-[0-9a-f]{8}$" in json.dumps(policy)


# Rights on the node.


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_makes_mounts_is_privileged_and_it_ends(version: str) -> None:
    spec = one("DaemonSet", "node", version)["spec"]["template"]["spec"]
    privileged = [n for n, each in containers(version).items() if each["securityContext"].get("privileged")]
    assert privileged == [each["name"] for each in spec["initContainers"]] == ["prepare"]
    assert spec["hostNetwork"] is True
    assert not spec.get("hostPID") and not spec.get("hostIPC")


def test_only_who_asks_for_commands_gives_the_agent_sight_of_processes_and_rights_for_it() -> None:
    text = (CHART / "README.md").read_text()
    without = ("--set", "node.commands=true,node.sysResource=false")
    for options, beyond in (
        ((), set()),
        (("--set", "node.commands=true"), COMMANDS),
        (without, COMMANDS - {"SYS_RESOURCE"}),
    ):
        spec = one("DaemonSet", "node", "1.31", *options)["spec"]["template"]["spec"]
        agent = next(each for each in spec["containers"] if each["name"] == "agent")
        assert set(agent["securityContext"]["capabilities"]["add"]) == AGENT | beyond
        assert spec.get("hostPID", False) is bool(beyond)
        mounts = {mount["mountPath"]: mount for mount in agent["volumeMounts"]}
        assert ("/run/containerd/io.containerd.runtime.v2.task" in mounts) is bool(beyond)
        assert mounts["/sys/fs/cgroup"]["readOnly"] is not bool(beyond)
        assert all(f"`{capability}`" in text for capability in beyond)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_container_drops_all_and_gets_back_what_is_explained(version: str) -> None:
    expected = {"agent": AGENT, "gateway": LAUNCHER, "resolver": LAUNCHER, "keeper": set(), "registry": set()}
    text = (CHART / "README.md").read_text()
    for name, container in containers(version).items():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        if name == "prepare":
            continue
        assert context["capabilities"]["drop"] == ["ALL"], name
        assert set(context["capabilities"].get("add", [])) == expected[name], name
        assert all(f"`{capability}`" in text for capability in expected[name])
        if not expected[name]:
            assert context["allowPrivilegeEscalation"] is False, name


@pytest.mark.parametrize("version", VERSIONS)
def test_what_isnt_a_nodes_runs_as_nobody_of_the_nodes(version: str) -> None:
    for kind, name in (("Deployment", "controller"), ("Job", "leaving")):
        spec = one(kind, name, version)["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == debian.CYTOPLANE
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert not any("hostPath" in volume for volume in spec["volumes"])


def test_folders_of_the_node_are_those_that_are_explained() -> None:
    text = (CHART / "README.md").read_text()
    sets = [one("DaemonSet", name)["spec"]["template"]["spec"] for name in ("node", "edge")]
    paths = {v["hostPath"]["path"] for spec in sets for v in spec["volumes"] if "hostPath" in v}
    home = "/var/lib/cytoplane"
    assert all(f"`{path}`" in text for path in paths if not path.startswith(home))
    mounts = {name: {m["name"]: m for m in c["volumeMounts"]} for name, c in containers().items()}
    both = [
        n
        for n, found in mounts.items()
        if any(m.get("mountPropagation") == "Bidirectional" for m in found.values())
    ]
    assert both == ["prepare"]
    assert [name for name, found in mounts.items() if "cni-conf" in found] == ["keeper"]
    assert mounts["agent"]["logs"]["readOnly"] and mounts["agent"]["cgroups"]["readOnly"]
    assert mounts["registry"]["agent"]["readOnly"]
    # What tenants' requests reach sees neither certificate nor desired state.
    assert not {"home", "agent", "account", "run"} & (set(mounts["gateway"]) | set(mounts["resolver"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_tokens_of_the_cluster_are_only_where_they_are_used(version: str) -> None:
    for spec in pods(version):
        assert spec["automountServiceAccountToken"] is False
    with_token = {
        n for n, c in containers(version).items() if any(m["name"] == "account" for m in c["volumeMounts"])
    }
    assert with_token == {"agent", "keeper"}
    for account in (o for o in objects(version) if o["kind"] == "ServiceAccount"):
        assert account["metadata"]["name"] == "leaving" or account["automountServiceAccountToken"] is False


# Running.


@pytest.mark.parametrize("version", VERSIONS)
def test_every_container_says_how_it_is_and_what_it_needs(version: str) -> None:
    for spec in pods(version):
        for container in spec["containers"]:
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            assert "cpu" not in container["resources"]["limits"] or container["name"] == "leaving"
            if container["name"] != "leaving":
                assert "readinessProbe" in container, container["name"]


def test_images_are_those_that_are_made() -> None:
    images = {
        c["image"]
        for version in VERSIONS
        for spec in pods(version)
        for c in (*spec.get("initContainers", []), *spec["containers"])
    }
    names = {re.fullmatch(r"registry\.example\.com/cytoplane/([a-z-]+):[0-9.]+", image) for image in images}
    assert None not in names
    assert {match[1] for match in names if match} <= set(recipe.IMAGES)


def test_pods_of_cells_begin_with_the_check_whatever_version_the_images_have() -> None:
    image = one("ConfigMap", "node", "1.31", "--set", "image.tag=1.2")["data"]["CYTOPLANE_CHECK_IMAGE"]
    assert image == names.check_image(5001)


def test_users_of_gateway_and_resolver_are_in_the_images() -> None:
    known = dict(debian._users())
    for number in (0, 15):
        spec = one("DaemonSet", "edge", "1.31", "--set", f"net={number}")["spec"]["template"]["spec"]
        commands = {c["name"]: c["command"] for c in spec["containers"]}
        for name in ("gateway", "resolver"):
            assert commands[name][4] in known
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("version", VERSIONS)
def test_another_version_of_the_agent_alone_replaces_neither_gateway_nor_resolver(version: str) -> None:
    kept = ("--set-string", "edge.tag=1")
    before, after = (
        one("DaemonSet", "edge", version, *kept, "--set-string", f"image.tag={tag}") for tag in ("1", "2")
    )
    assert before["spec"] == after["spec"]
    assert one("DaemonSet", "node", version, *kept, "--set-string", "image.tag=2")["spec"] != before["spec"]


@pytest.mark.parametrize("version", VERSIONS)
def test_gateways_overlap_where_the_cluster_can_do_that(version: str) -> None:
    rolling = one("DaemonSet", "edge", version)["spec"]["updateStrategy"]["rollingUpdate"]
    assert rolling == ({"maxUnavailable": 1} if version == "1.20" else {"maxUnavailable": 0, "maxSurge": 1})
    # Agents never: two of them would write the same tables.
    assert one("DaemonSet", "node", version)["spec"]["updateStrategy"]["rollingUpdate"] == {
        "maxUnavailable": 1
    }


def test_the_token_is_a_secret_of_one_use_and_needed_once() -> None:
    secret = one("Secret", identity.TOKEN)
    assert secret["stringData"] == {"token": "cye_example"}
    assert "pre-install" in secret["metadata"]["annotations"]["helm.sh/hook"]
    assert not [o for o in objects("1.31", "--set", "enrolment.token=") if o["kind"] == "Secret"]


def test_no_node_has_a_name_by_which_it_would_get_the_controllers_token() -> None:
    prefix = nodes.secret_of("")
    assert nodes.secret_of("controller") == f"{prefix}controller"
    assert not identity.TOKEN.startswith(prefix)


def test_a_cluster_that_is_driven_from_elsewhere_has_no_controller_and_none_of_its_rights() -> None:
    found = objects("1.31", "--set", "controller.enabled=false")
    assert not [o for o in found if "controller" in o["metadata"]["name"] or o["metadata"]["name"] == ROLE]


def test_the_hook_and_the_code_mean_the_same_objects() -> None:
    assert one("DaemonSet", leaving.AGENTS)
    job = one("Job", "leaving")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "dataplane.node.leaving"
    assert requests.TAINT["key"] in (CHART / "README.md").read_text()


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("control.url=http://cytoplane.example.com:8443", "control.url"),
        ("control.url=", "control.url"),
        ("net=16", "net"),
        ("clusterNetworks={10.0.0.1}", "clusterNetworks"),
        ("node.home=relative", "home"),
        ("enrolment.token=abc", "token"),
        ("node.surprise=1", "surprise"),
        ("controller.replicas=0", "replicas"),
    ],
)
def test_values_that_cant_be_meant_are_refused(option: str, complaint: str) -> None:
    done = rendered("1.31", "--set", option)
    assert done.returncode != 0 and complaint in done.stderr


def test_another_namespace_is_refused() -> None:
    done = rendered("1.31", "--namespace", "elsewhere")
    assert done.returncode != 0 and "cytoplane" in done.stderr


def test_every_value_is_explained() -> None:
    text = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for group, entry in values.items():
        names = [group] if not isinstance(entry, dict) else [f"{group}.{name}" for name in entry]
        for name in names:
            short = name.partition(".")[2]
            assert f"`{name}`" in text or f"`.{short}`" in text or f"`{name}." in text, name
