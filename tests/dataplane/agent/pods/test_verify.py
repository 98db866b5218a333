"""Which pods may be a replica: a label is a question, desired state answers it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods.verify import altered, images_of, refusal, replica_of
from infra.config import Config
from tests.dataplane.agent.pods.shapes import CONFINED, USER

PLACE = "cell-7-0123abcd"
IMAGE = "t1/p2@sha256:" + "a" * 64
NAMED = f"127.0.0.1:5001/{IMAGE}"
CHECK = "127.0.0.1:5001/check@sha256:" + "b" * 64
ENDPOINT: dict[str, Any] = {
    "id": "r1",
    "pod": {"namespace": PLACE},
    "process": {"image": IMAGE},
}


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "r1-x",
            "namespace": PLACE,
            "uid": "u",
            "labels": {"cytoplane.dev/replica": "r1"},
        },
        "spec": {
            "securityContext": dict(USER),
            "initContainers": [{"name": "check", "image": CHECK, "securityContext": dict(CONFINED)}],
            "containers": [{"name": "app", "image": NAMED, "securityContext": dict(CONFINED)}],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "env", "secret": {"secretName": "env"}}],
            **spec,
        },
    }


IMAGES = images_of(Config(home=Path("/nowhere"), check_image=CHECK), ENDPOINT)


def why(given: dict[str, Any], endpoint: dict[str, Any] = ENDPOINT) -> str:
    before = copy.deepcopy(given)
    found = refusal(given, endpoint, IMAGES)
    assert given == before
    return found


def test_a_replica_with_its_image_and_the_platforms_check_may_run() -> None:
    assert replica_of(pod()) == "r1"
    assert why(pod()) == ""


def test_a_pod_that_runs_is_what_it_was_let_in_as_whatever_port_its_images_are_asked_at() -> None:
    assert altered(pod(), ENDPOINT, IMAGES) == ""
    other = images_of(Config(home=Path("/nowhere"), registry_port=5100), ENDPOINT)
    assert altered(pod(), ENDPOINT, other) == "", "the first container has ended"
    going = pod(containers=[])
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {}}
    assert altered(going, ENDPOINT, IMAGES) == ""


@pytest.mark.parametrize(
    "image",
    [
        NAMED[:-1] + "b",
        NAMED.replace("t1/", "t2/"),
        f"10.0.0.1:5001/{IMAGE}",
        IMAGE.replace("/", "/127.0.0.1:5001/"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "ephemeralContainers"])
def test_another_image_or_container_than_it_was_let_in_with_makes_it_another(kind: str, image: str) -> None:
    given = pod()
    more = {
        "name": "app" if kind == "containers" else "debug",
        "image": image,
        "securityContext": dict(CONFINED),
    }
    given["spec"][kind] = [more]
    assert "doesn't name the image" in altered(given, ENDPOINT, IMAGES)


def test_a_container_with_more_rights_that_is_added_and_another_label_make_it_another() -> None:
    given = pod(ephemeralContainers=[{"name": "debug", "image": NAMED}])
    assert "container debug" in altered(given, ENDPOINT, IMAGES)
    for label in ({}, {"cytoplane.dev/replica": "r2"}):
        given = pod()
        given["metadata"]["labels"] = label
        assert altered(given, ENDPOINT, IMAGES) == "the pod says no more that it is r1"


def test_images_are_named_as_pods_name_them() -> None:
    assert {NAMED, CHECK} == IMAGES
    # Without a check, none of it may run; another registry's port is another name.
    assert images_of(Config(home=Path("/nowhere"), registry_port=5100), ENDPOINT) == {
        f"127.0.0.1:5100/{IMAGE}"
    }


@pytest.mark.parametrize("label", [None, "", "r0", "r1 ", "R1", "7", "r1x", "gateway", "r" + "9" * 20])
def test_a_label_that_names_no_replica_is_none(label: str | None) -> None:
    given = pod()
    given["metadata"]["labels"] = None if label is None else {"cytoplane.dev/replica": label}
    assert replica_of(given) == ""


def test_a_replica_of_another_cell_is_refused_whatever_the_label_says() -> None:
    for elsewhere in ({"namespace": "cell-8-0123abcd"}, {}, None):
        said = why(pod(), {**ENDPOINT, "pod": elsewhere})
        assert said == "r1 isn't a replica of this namespace's cell"


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize(
    "image",
    ["busybox", IMAGE.replace("t1/", "t2/"), IMAGE, NAMED.replace("5001", "5002"), f"{NAMED} ", "", None],
)
def test_an_image_that_desired_state_does_not_name_is_refused(kind: str, image: str | None) -> None:
    given = pod()
    given["spec"][kind] = [*given["spec"].get(kind, []), {"name": "extra", "image": image}]
    assert why(given) == "desired state doesn't name the image of container extra for r1"


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_the_nodes_namespaces_are_refused(field: str) -> None:
    assert why(pod(**{field: True})) == f"a cell's pod can't have {field}"
    assert why(pod(**{field: False})) == ""


@pytest.mark.parametrize(
    "more",
    [
        {"securityContext": {"privileged": True}},
        {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
        {"securityContext": {"procMount": "Unmasked"}},
        {"ports": [{"containerPort": 80, "hostPort": 80}]},
        {"volumeDevices": [{"name": "disk", "devicePath": "/dev/sda"}]},
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_what_reaches_around_the_network_is_refused(kind: str, more: dict[str, Any]) -> None:
    given = pod()
    container = given["spec"][kind][0]
    container |= {**more, "securityContext": {**CONFINED, **more.get("securityContext", {})}}
    assert why(given).startswith(f"container {container['name']} ")


def test_what_restricts_a_container_is_fine() -> None:
    given = pod()
    given["spec"]["containers"][0] |= {
        "securityContext": {**CONFINED, "procMount": "Default", "runAsUser": 1001},
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
    }
    assert why(given) == ""
    # What holds for the whole pod needn't be said again.
    for container in (*given["spec"]["containers"], *given["spec"]["initContainers"]):
        for field in ("runAsNonRoot", "seccompProfile", "runAsUser"):
            container["securityContext"].pop(field, None)
    assert why(given) == ""


@pytest.mark.parametrize(
    ("different", "sentence"),
    [
        ({"runAsNonRoot": False}, "may run as root"),
        ({"runAsUser": 0}, "runs as root"),
        ({"allowPrivilegeEscalation": True}, "doesn't forbid privilege escalation"),
        ({"allowPrivilegeEscalation": None}, "doesn't forbid privilege escalation"),
        ({"capabilities": {"drop": ["NET_RAW"]}}, "doesn't drop all capabilities"),
        ({"capabilities": None}, "doesn't drop all capabilities"),
        ({"seccompProfile": {"type": "Unconfined"}}, "hasn't the runtime's seccomp profile"),
        (
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}},
            "hasn't the runtime's seccomp profile",
        ),
        ({"appArmorProfile": {"type": "Unconfined"}}, "has another AppArmor profile"),
        ({"seLinuxOptions": {"type": "spc_t"}}, "has an SELinux label of its own"),
        ({"seLinuxOptions": {"user": "system_u"}}, "has an SELinux label of its own"),
        ({"windowsOptions": {"hostProcess": True}}, "is a process of the node"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_what_pod_security_calls_unrestricted_is_refused(
    kind: str, different: dict[str, Any], sentence: str
) -> None:
    given = pod()
    extra = {"name": "extra", "image": NAMED, "securityContext": {**CONFINED, **different}}
    given["spec"][kind] = [*given["spec"].get(kind, []), extra]
    assert why(given).startswith(f"container extra {sentence}")


@pytest.mark.parametrize(
    ("different", "sentence"),
    [
        ({"runAsNonRoot": None}, "container check may run as root"),
        ({"runAsUser": 0}, "container check runs as root"),
        ({"seccompProfile": None}, "container check hasn't the runtime's seccomp profile"),
        ({"appArmorProfile": {"type": "Unconfined"}}, "container check has another AppArmor profile"),
        (
            {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 1"}]},
            "a cell's pod can't set sysctls",
        ),
    ],
)
def test_what_a_whole_pod_says_counts_where_its_containers_say_nothing(
    different: dict[str, Any], sentence: str
) -> None:
    given = pod(securityContext={**USER, **different})
    for container in (*given["spec"]["containers"], *given["spec"]["initContainers"]):
        container["securityContext"] = {
            key: value for key, value in CONFINED.items() if key not in ("runAsNonRoot", "seccompProfile")
        }
    assert why(given).startswith(sentence)


def test_a_pod_that_says_nothing_of_its_rights_is_refused() -> None:
    assert why(
        pod(securityContext=None, containers=[{"name": "app", "image": NAMED}], initContainers=[])
    ) == ("container app may run as root (runAsNonRoot: true is missing)")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("container.seccomp.security.alpha.kubernetes.io/app", "unconfined"),
        ("seccomp.security.alpha.kubernetes.io/pod", "localhost/a.json"),
        ("container.apparmor.security.beta.kubernetes.io/app", "unconfined"),
    ],
)
def test_a_profile_in_an_annotation_is_the_runtimes_or_none(annotation: str, value: str) -> None:
    given = pod()
    given["metadata"]["annotations"] = {annotation: value}
    assert f"the annotation {annotation}" in why(given)
    given["metadata"]["annotations"] = {annotation: "runtime/default", "somebody.example/else": "unconfined"}
    assert why(given) == ""


@pytest.mark.parametrize(
    "more",
    [
        {"livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80}}},
        {"readinessProbe": {"tcpSocket": {"host": "10.0.0.1", "port": 22}}},
        {"lifecycle": {"postStart": {"httpGet": {"host": "127.0.0.1", "port": 10255}}}},
    ],
)
def test_a_pod_that_has_the_node_ask_others_is_refused(more: dict[str, Any]) -> None:
    given = pod()
    given["spec"]["containers"][0] |= more
    assert why(given) == "container app has the node ask another host than the pod"


@pytest.mark.parametrize("kind", ["hostPath", "nfs", "csi", "iscsi", "flexVolume", "somethingNew"])
def test_volumes_that_hold_something_of_the_node_or_beyond_are_refused(kind: str) -> None:
    assert (
        why(pod(volumes=[{"name": "v", kind: {"path": "/"}}]))
        == f"a cell's pod can't have the volume v ({kind})"
    )


def test_a_pod_that_is_being_deleted_becomes_nothing_any_more() -> None:
    given = pod()
    given["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert why(given) == "the pod is being deleted"
