"""Whose gateways may meet, and with what certificate."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from dataplane.planes import enrolment, gateways, snapshots
from dataplane.planes.models import Certificate, Node, Plane
from tests.factories import NodeClient, World, certificate_request

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("installation")]


@pytest.fixture
def cluster(world: World) -> Plane:
    return Plane.objects.create(name="cluster", engine=Plane.Engine.KUBERNETES)


@pytest.fixture
def node(world: World, cluster: Plane) -> NodeClient:
    return world.agent(cluster, "node1")


def ask(node: NodeClient, csr: str | None = None) -> Any:
    return node("POST", "/agent/gateway-certificate", {"csr_pem": csr or certificate_request()})


def test_a_gateways_certificate_names_its_plane_and_node_and_opens_nothing_here(
    world: World, cluster: Plane, node: NodeClient
) -> None:
    answer = ask(node).json()
    made = x509.load_pem_x509_certificate(answer["certificate_pem"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    expected = gateways.name(cluster.pk, node.node.pk)
    assert list(names) == [x509.UniformResourceIdentifier(expected)]
    usages = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    fingerprint = made.fingerprint(made.signature_hash_algorithm).hex()  # type: ignore[arg-type]
    assert not Certificate.objects.filter(fingerprint=fingerprint).exists()
    assert node("GET", "/agent/desired", certificate=fingerprint).status_code == 401


def test_only_an_agent_gets_one_and_only_for_a_request_that_is_one(world: World, node: NodeClient) -> None:
    assert ask(world.builder()).status_code == 401
    for csr in ("", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        assert node("POST", "/agent/gateway-certificate", {"csr_pem": csr}).status_code == 422, csr
    enrolment.revoke("somebody", node.node)
    assert ask(node).status_code == 401


def uri(answer: Any) -> str:
    """The name in the certificate of an answer."""
    made = x509.load_pem_x509_certificate(answer.json()["certificate_pem"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


def told(plane: Plane) -> Any:
    snapshots.rebuild(plane.pk)
    return snapshots.whole(plane.pk).get("gateways")


def test_desired_state_names_the_gateways_of_the_planes_own_nodes(
    world: World, cluster: Plane, node: NodeClient
) -> None:
    second = world.agent(cluster, "node2")
    world.agent()
    NodeClient.enrolled(Node.Kind.CONTROLLER, cluster, "controller")
    expected = [gateways.name(cluster.pk, each.node.pk) for each in (node, second)]
    assert told(cluster) == expected
    before = Plane.objects.get(pk=cluster.pk).generation
    enrolment.renew(second.node, certificate_request())
    assert told(cluster) == expected
    assert Plane.objects.get(pk=cluster.pk).generation == before, "a renewal is nobody else's concern"


def test_who_is_revoked_is_out_with_the_next_generation(
    world: World, cluster: Plane, node: NodeClient
) -> None:
    second = world.agent(cluster, "node2")
    assert len(told(cluster)) == 2
    enrolment.revoke("somebody", second.node)
    assert told(cluster) == [gateways.name(cluster.pk, node.node.pk)]
    world.agent(cluster, "node2")
    assert len(told(cluster)) == 2


def test_what_a_nodes_gateway_had_before_its_node_enrolled_again_is_out(
    cluster: Plane, world: World, node: NodeClient
) -> None:
    earlier = uri(ask(node))
    assert told(cluster) == [earlier]
    again = world.agent(cluster, "node1")
    assert again.node == node.node
    later = uri(ask(again))
    assert later != earlier and told(cluster) == [later]


def test_a_machines_desired_state_names_nobody(world: World) -> None:
    world.agent()
    assert told(world.plane) is None
