"""The control plane on a real cluster: installed, used, hurt, upgraded. Database and Redis are elsewhere."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.beat import LEASE_KEY
from controlplane.celery import PULSE_KEY
from infra import config
from infra.cluster import images as cluster_images
from infra.images import __main__ as images
from tests.cluster import LONGEST, TwoNodes
from tests.infra.charts.release import ADMIN, HOST, PASSWORD, Portal, Release, commit, eventually, push
from tests.infra.charts.servers import Servers

pytestmark = [pytest.mark.root, pytest.mark.timeout(LONGEST)]
#: A member of the tenant `acme`.
MEMBER = "dev@acme.example"
SOURCE = {
    "requirements.txt": "",
    "server.py": "print('hello')\n",
    "cytoplane.yaml": "components:\n  web:\n    kind: web\n    command: exec python server.py\n",
}


@pytest.fixture(scope="module")
def servers(bare_nodes: TwoNodes) -> Iterator[Servers]:
    """PostgreSQL and Redis on the machine, which to the cluster is somebody else's network."""
    folder = Path(tempfile.mkdtemp(prefix="cytoplane-servers-"))
    made = Servers(folder, str(bare_nodes.cluster.link(1)[0].ip), 25432, 26379)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def release(two_nodes: TwoNodes, servers: Servers) -> Iterator[Release]:
    """The chart, installed with two of each part."""
    cache = config.load().cache
    names = {name: f"cytoplane.dev/{name}:test" for name in ("control-plane", "registry")}
    images.build(cache, lambda _: None)
    # Both nodes have the machine's /dev, so this is storage that they share.
    shared = Path("/dev/shm") / f"cytoplane-test-{secrets.token_hex(4)}"
    shared.mkdir()
    archive = shared / "images.tar"
    try:
        images.store(cache).archive(archive, names)
        cluster_images.load(two_nodes.cluster, archive)
        archive.unlink()
        wanted = {"controlPlane": names["control-plane"], "registry": names["registry"]}
        made = Release(two_nodes, servers, shared, wanted)
        made.prepare()
        made.upgrade()
        yield made
        made.uninstall()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


@pytest.fixture(scope="module")
def member(release: Release) -> str:
    """A member's token; the tenant and its project were made by way of different pods."""
    first, *_, last = release.addresses()
    token = Portal(first).token(ADMIN, PASSWORD)
    Portal(last, token).call("POST", "/admin/users", {"email": MEMBER, "password": PASSWORD})
    Portal(first, token).call("POST", "/admin/tenants", {"slug": "acme", "owner": MEMBER})
    token = Portal(last).token(MEMBER, PASSWORD)
    Portal(first, token).call("POST", "/tenants/acme/projects", {"slug": "shop"})
    return token


def _deployments(address: str, token: str) -> list[dict[str, Any]]:
    path = "/tenants/acme/projects/shop/environments/production/deployments"
    return Portal(address, token).call("GET", path)


def test_everything_is_there_twice_on_both_nodes(release: Release) -> None:
    for part in ("web", "worker", "beat"):
        pods = release.pods(part)
        assert len(pods) == 2, part
    assert {pod["spec"]["nodeName"] for pod in release.pods("web").values()} == {"node1", "node2"}
    assert len(release.pods("registry")) == 1


def test_who_signs_in_by_one_pod_is_signed_in_at_the_other(release: Release) -> None:
    first, second = release.addresses()
    here = Portal(first).http
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', here.get("/sign-in").text)
    assert token
    form = {"csrfmiddlewaretoken": token[1], "email": ADMIN, "password": PASSWORD}
    answer = here.post("/sign-in", data=form, headers={"Origin": f"http://{HOST}:8000"})
    assert answer.status_code == 302, answer.text[:500]
    there = Portal(second).http
    there.cookies.set("cytoplane-session", here.cookies["cytoplane-session"])
    page = there.get("/", follow_redirects=True)
    assert page.status_code == 200
    assert ADMIN in page.text
    assert Portal(second).http.get("/").status_code == 401


def test_static_files_come_with_the_image(release: Release) -> None:
    page = Portal(release.addresses()[0]).http
    style = re.search(r'href="(/static/[^"]+\.css)"', page.get("/sign-in").text)
    assert style and page.get(style[1]).status_code == 200


def test_the_agents_listener_proves_who_it_is_and_knows_no_strangers(release: Release) -> None:
    context = ssl.create_default_context(cadata=release.secret("cy-keys")["authority.pem"].decode())
    for address in release.addresses():
        with httpx.Client(verify=context, trust_env=False) as client:
            extensions = {"sni_hostname": "agents.test"}
            url, headers = f"https://{address}:8443", {"Host": "agents.test:8443"}
            found = client.get(f"{url}/authority", headers=headers, extensions=extensions)
            assert found.text == release.secret("cy-keys")["authority.pem"].decode()
            for path in ("/agent/desired", "/v2/", "/builder/next"):
                answer = client.get(f"{url}{path}", headers=headers, extensions=extensions)
                assert answer.status_code == 401, (path, answer.text)
            # Nothing of the portal is here, nor the other way round.
            assert client.get(f"{url}/sign-in", headers=headers, extensions=extensions).status_code == 404
        assert Portal(address).http.get("/authority").status_code == 401


def test_a_push_outlives_the_pod_that_took_it(release: Release, member: str, tmp_path: Path) -> None:
    pods = release.pods("web")
    name = next(iter(pods))
    took = pods.pop(name)["status"]["podIP"]
    other = next(iter(pods.values()))["status"]["podIP"]
    commit(tmp_path / "shop", SOURCE)
    pushing = push(tmp_path / "shop", took, member, "acme", "shop")
    try:
        eventually(lambda: _deployments(other, member), 30, "no deployment came of the push")
        release.kill(name)
        release.kill(next(iter(release.pods("worker"))))
        assert pushing.wait(timeout=60) != 0
    finally:
        _end(pushing)
    # No builder is enrolled here, so it waits; nothing of it is lost, and the next one stands behind it.
    [waiting] = _deployments(other, member)
    assert waiting["state"] in ("queued", "building")
    again = push(tmp_path / "shop", other, member, "acme", "shop")
    try:
        eventually(lambda: len(_deployments(other, member)) == 2, 30, "the second push isn't taken")
    finally:
        _end(again)
    eventually(lambda: len(release.pods("web")) == 2 == len(release.pods("worker")), 90, release.logs)


def test_periodic_tasks_go_on_when_the_beat_that_gave_them_out_dies(release: Release) -> None:
    redis = release.servers.redis()

    def lease() -> str:
        found = redis.get(LEASE_KEY)
        return found.decode() if isinstance(found, bytes) else ""

    holder = eventually(lease, 30, "nobody has the lease")
    assert holder in release.pods("beat")
    release.kill(holder)
    redis.delete(PULSE_KEY)

    def another() -> bool:
        return lease() not in ("", holder) and bool(redis.get(PULSE_KEY))

    eventually(another, 60, "nobody took over")


def test_migrations_may_run_twice_and_at_once(release: Release) -> None:
    [job] = [
        document
        for document in release.rendered()
        if document["kind"] == "Job" and document["metadata"]["name"].endswith("-migrations")
    ]
    release.run_job(job, ["again-1", "again-2"])


def test_an_upgrade_changes_numbers_and_keeps_keys_and_people(release: Release, member: str) -> None:
    keys, registry = release.secret("cy-keys"), release.secret("cy-registry-keys")
    release.upgrade(web={"replicas": 3}, worker={"replicas": 1})
    assert len(release.pods("web")) == 3
    assert len(release.pods("worker")) == 1
    assert (release.secret("cy-keys"), release.secret("cy-registry-keys")) == (keys, registry)
    for address in release.addresses():
        assert [project["slug"] for project in Portal(address, member).call("GET", "/tenants/acme/projects")]


def _end(process: subprocess.Popen) -> None:
    """git and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
