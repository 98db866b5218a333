"""What Kubernetes says, in words for people. The messages were seen on clusters of 1.20 to 1.31."""

from __future__ import annotations

import pytest

from dataplane.drivers.kubernetes import sentences


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("0/2 nodes are available: 2 Insufficient memory.", "no node of the plane has enough memory for it"),
        (
            "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes are available",
            "no node of the plane has enough processor time or memory for it",
        ),
        (
            "0/2 nodes are available: 2 node(s) had taint {cytoplane.dev/unprotected: }, that the pod didn't tolerate.",
            "no node of the plane can isolate it at the moment",
        ),
        (
            "0/1 nodes are available: 1 node(s) were unschedulable.",
            "no node of the plane can take it: 0/1 nodes are available: 1 node(s) were unschedulable",
        ),
    ],
)
def test_why_no_node_takes_it(message: str, words: str) -> None:
    assert sentences.unschedulable(message) == words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'Failed to pull image "127.0.0.1:5001/t1/p1@sha256:0": rpc error: code = NotFound desc = failed to '
            'pull and unpack image "x": failed to resolve reference "x": x: not found',
            "the registry doesn't have it",
        ),
        (
            'Failed to pull image "x": rpc error: code = Unknown desc = failed to resolve reference "x": failed to '
            "authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized",
            "the registry refuses the node",
        ),
        (
            'rpc error: code = Unknown desc = failed to do request: Head "http://127.0.0.1:5001/v2/": dial tcp '
            "127.0.0.1:5001: connect: connection refused",
            "the node doesn't reach the registry",
        ),
        ("write /var/lib/x: no space left on device", "the node's disk is full"),
        ("rpc error: code = Unknown desc = the moon is full.", "the moon is full"),
    ],
)
def test_why_its_image_isnt_there(message: str, words: str) -> None:
    assert sentences.image(message) == f"its image can't be pulled: {words}"


def test_what_our_own_plugin_says_is_said_as_it_is() -> None:
    message = (
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
        '"0a": plugin type="cytoplane" failed (add): r7 isn\'t a replica of this namespace\'s cell'
    )
    assert (
        sentences.sandbox(message)
        == "its node gives it no network: r7 isn't a replica of this namespace's cell"
    )
    other = "Failed to create pod sandbox: rpc error: code = Unknown desc = no ranges left."
    assert sentences.sandbox(other) == "its node can't prepare it: no ranges left"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'pods "r1-0" is forbidden: exceeded quota: plan, requested: limits.memory=1Gi,pods=1, used: '
            "limits.memory=2Gi,pods=2, limited: limits.memory=2Gi,pods=2",
            "the cell's quota refuses it (limits.memory=1Gi,pods=1 more is too much)",
        ),
        (
            'pods "r1-0" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
            'the cluster\'s pod security refuses it: PodSecurity "restricted:latest": allowPrivilegeEscalation != '
            "false",
        ),
        (
            'pods "r1-0" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
            "the cluster refuses it: maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
    ],
)
def test_why_the_cluster_makes_no_pod(message: str, words: str) -> None:
    assert sentences.refused(message) == words


def test_a_container_that_waits_for_its_variables_will_start() -> None:
    assert sentences.configuration('secret "env-r12" not found') == (
        True,
        "its variables aren't on the cluster yet",
    )
    passing, words = sentences.configuration("container has runAsNonRoot and image will run as root")
    assert not passing
    assert words.endswith("container has runAsNonRoot and image will run as root")


def test_what_is_said_is_one_line_of_bounded_length() -> None:
    assert len(sentences.short("x" * 5000)) <= 240
    assert "\n" not in sentences.image("a\nb" * 400)
