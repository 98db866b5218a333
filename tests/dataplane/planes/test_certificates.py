"""What a certificate opens: by its row, looked up each time, and only on its own side."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import enrolment
from dataplane.planes.models import Certificate, Node
from tests import factories
from tests.dataplane.planes.conftest import Bare
from tests.factories import NodeClient, World

AGENTS = [("POST", "/agent/acknowledge"), ("POST", "/agent/report")]
BUILDERS = [
    ("GET", "/builder/builds/1/source"),
    ("POST", "/builder/builds/1/log"),
    ("POST", "/builder/builds/1/heartbeat"),
    ("POST", "/builder/builds/1/result"),
]
OTHERS = [("POST", "/renew"), ("GET", "/authz/v2/"), ("GET", "/authz/v2/t1/p1/manifests/x")]


def asked(node: NodeClient, method: str, path: str, **more: str) -> int:
    return node(method, path, {} if method == "POST" else None, **more).status_code


@pytest.mark.parametrize(("method", "path"), AGENTS + BUILDERS + OTHERS)
def test_nothing_opens_without_a_certificate(bare: Bare, method: str, path: str) -> None:
    bare.agent()
    fingerprint = Certificate.objects.get().fingerprint
    for header in (
        None,
        "",
        "Hash=",
        f"Hash={'0' * 64}",
        f"Hash={fingerprint.upper()}",
        f"Hash={fingerprint}0",
        f"Hash={fingerprint[:-1]}",
        f"hash={fingerprint}",
        f"By=x,Hash={fingerprint}",
        f"XHash={fingerprint}",
        f'Subject="Hash={fingerprint}"',
        f"URI=cytoplane://node/{Node.objects.get().pk}",
        fingerprint,
    ):
        headers = {} if header is None else {"X-Forwarded-Client-Cert": header}
        answer = factories.surface(factories.client(), method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["id"]) == (401, "certificate-refused"), header


@pytest.mark.parametrize(("method", "path"), AGENTS)
def test_a_builder_opens_nothing_of_agents(bare: Bare, method: str, path: str) -> None:
    assert asked(bare.agent(), method, path) == 200
    assert asked(bare.builder(), method, path) == 401


@pytest.mark.parametrize(("method", "path"), BUILDERS)
def test_an_agent_opens_nothing_of_builders(bare: Bare, method: str, path: str) -> None:
    assert asked(bare.builder(), method, path) in (200, 404)
    assert asked(bare.agent(), method, path) == 401


def test_revoking_takes_hold_with_the_next_request(world: World) -> None:
    node = world.agent()
    assert asked(node, "POST", "/agent/report") == 200
    answer = world.api("owner").post(f"/nodes/{node.node.pk}/revoke")
    assert answer.status_code in (403, 404), "a tenant's owner is no platform admin"
    assert asked(node, "POST", "/agent/report") == 200
    admin = factories.Api(factories.bearer(world.admin))
    assert admin.post(f"/nodes/{node.node.pk}/revoke").status_code == 200
    for method, path in (*AGENTS, *OTHERS):
        assert asked(node, method, path) == 401


def test_an_ended_certificate_opens_only_renewal(bare: Bare) -> None:
    node = bare.agent()
    old = node.certificate
    Certificate.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    for method, path in (*AGENTS, *OTHERS[1:]):
        assert asked(node, method, path) == 401
    answer = node("POST", "/renew", {"csr_pem": factories.certificate_request()})
    assert answer.status_code == 200
    assert node.certificate != old
    assert asked(node, "POST", "/agent/report") == 200
    assert asked(node, "POST", "/agent/report", certificate=old.fingerprint) == 401


def test_an_ended_certificate_that_was_revoked_opens_nothing(bare: Bare) -> None:
    node = bare.agent()
    Certificate.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    enrolment.revoke("somebody", node.node)
    assert node("POST", "/renew", {"csr_pem": factories.certificate_request()}).status_code == 401


def test_the_certificate_before_a_renewal_goes_on_until_it_ends(bare: Bare) -> None:
    node = bare.agent()
    old = node.certificate.fingerprint
    assert node("POST", "/renew", {"csr_pem": factories.certificate_request()}).status_code == 200
    assert asked(node, "POST", "/agent/report", certificate=old) == 200
    enrolment.revoke("somebody", node.node)
    assert asked(node, "POST", "/agent/report", certificate=old) == 401
    assert asked(node, "POST", "/agent/report") == 401


def test_a_renewal_that_is_under_way_while_its_node_is_revoked_gets_nothing(bare: Bare) -> None:
    node = bare.agent()
    asking = Node.objects.get(pk=node.node.pk)  # its certificate was looked at
    enrolment.revoke("somebody", node.node)
    with pytest.raises(CytoplaneError) as caught:
        enrolment.renew(asking, factories.certificate_request())
    assert caught.value.code == "certificate-refused"
    assert not Certificate.objects.filter(revoked_at=None).exists()
    # Nor by what somebody else enrolled with since.
    bare.agent()
    with pytest.raises(CytoplaneError):
        enrolment.renew(asking, factories.certificate_request())
    assert Certificate.objects.filter(revoked_at=None).count() == 1


def test_a_node_renews_as_often_as_it_needs_to_and_no_more(bare: Bare) -> None:
    node = bare.agent()
    answers = [
        node("POST", "/renew", {"csr_pem": factories.certificate_request()})
        for _ in range(enrolment.RENEWALS)
    ]
    assert [answer.status_code for answer in answers] == [200] * (enrolment.RENEWALS - 1) + [409]
    Certificate.objects.update(expires_at=timezone.now() + timedelta(days=4))
    assert node("POST", "/renew", {"csr_pem": factories.certificate_request()}).status_code == 200


def test_only_the_post_method_changes_anything(bare: Bare) -> None:
    node = bare.agent()
    for _, path in (*AGENTS, OTHERS[0]):
        assert node("GET", path).status_code == 405 or node("GET", path).status_code == 401


def test_the_portals_addresses_dont_exist_on_the_agents_listener(bare: Bare) -> None:
    node = bare.agent()
    for path in ("/", "/api/v1/tenants", "/admin", "/git/acme/shop.git/info/refs", "/static/x"):
        assert node("GET", path).status_code == 404
