"""The proxy in front of the real image registry, which takes the node's certificate and nobody else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from dataplane.registry import grants, names
from infra.config import Config
from infra.images.oci import MANIFEST, Image, Store, file
from infra.kubernetes.certificates import Authority
from tests.dataplane import processes
from tests.dataplane.registry.test_grants import BANK, SHOP, endpoint, snapshot

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="servers give rights up")]
#: What the tenants' images hold; the second is of the same repository as the first, but another cell's.
SHOPS, NEXT, BANKS = "shop", "next", "bank"
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass
class Site:
    """A registry with images, a node's certificate, the proxy's port."""

    config: Config
    registry: int
    store: Store
    digests: dict[str, str]

    def client(self, namespace: str = "", token: str = "") -> httpx.Client:
        auth = httpx.BasicAuth(namespace, token) if namespace else None
        base = f"http://127.0.0.1:{self.config.registry_port}"
        # As container runtimes ask; the registry gives a manifest to who says that it understands it.
        return httpx.Client(base_url=base, auth=auth, timeout=10, headers={"Accept": f"{MANIFEST}, */*"})

    def layer(self, image: str) -> str:
        return self.store.blobs_of(self.digests[image])[1]

    def grant(self, *entries: tuple[str, str, str, str]) -> None:
        """Entries: namespace, token, repository, image."""
        found = [endpoint(n, t, f"{repository}@{self.digests[image]}") for n, t, repository, image in entries]
        grants.write(self.config, snapshot(*found))


def _registry(folder: Path, authority: Authority, port: int):  # type: ignore[no-untyped-def]
    certificate, key = authority.issue("registry", address="127.0.0.1")
    for name, data in (("server.pem", certificate), ("server.key", key), ("authority.pem", authority.pem)):
        (folder / name).write_bytes(data)
    settings = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "tls": {
                "certificate": str(folder / "server.pem"),
                "key": str(folder / "server.key"),
                "clientcas": [str(folder / "authority.pem")],
            },
        },
    }
    (folder / "settings.yml").write_text(json.dumps(settings))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, *processes.nobody())
    command = ["/usr/bin/docker-registry", "serve", str(folder / "settings.yml")]
    return processes.process(command, folder / "log", lambda: processes.listens(port))


def _push(site: Site, repository: str, image: str) -> None:
    target = f"docker://localhost:{site.registry}/{repository}:{image}"
    command = ["skopeo", "copy", "--quiet", "--dest-cert-dir", str(site.config.agent_dir)]
    subprocess.run([*command, f"oci:{site.store.root}:{image}", target], check=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home, authority = tmp_path_factory.mktemp("node"), Authority()
    registry = processes.free_port()
    config = Config(
        home=home,
        cache=home,
        control_url=f"https://localhost:{registry}",
        registry_port=processes.free_port(),
        engine="kubernetes",
    )
    config.agent_dir.mkdir()
    certificate, key = authority.issue("node")
    for name, data in (("client.cert", certificate), ("client.key", key), ("ca.crt", authority.pem)):
        (config.agent_dir / name).write_bytes(data)
    (home / "check").write_bytes(b"\x7fELF check")
    store = Store(home / "images")
    store.prepare()
    layers = {
        name: store.add_layer(name, "1", [file("app", f"{name} {'x' * 5000}".encode(), 0o755)])
        for name in (SHOPS, NEXT, BANKS)
    }
    digests = store.write(Image(name, (layer,), {"Cmd": ["/app"]}) for name, layer in layers.items())
    made = Site(config, registry, store, digests)
    with processes.folder("registry") as folder, _registry(folder, authority, registry):
        _push(made, "t1/p1", SHOPS)
        _push(made, "t1/p1", NEXT)
        _push(made, "t2/p2", BANKS)
        environment = [f"CYTOPLANE_HOME={home}", f"CYTOPLANE_CACHE={home}", f"PYTHONPATH={REPOSITORY}"]
        environment += [f"CYTOPLANE_CONTROL_URL={config.control_url}"]
        environment += [f"CYTOPLANE_REGISTRY_PORT={config.registry_port}"]
        command = ["env", *environment, sys.executable, "-m", "dataplane.registry"]
        ready = lambda: processes.listens(config.registry_port)  # noqa: E731
        with processes.process(command, home / "proxy.log", ready, rights=True):
            yield made


def manifest(repository: str, digest: str) -> str:
    return f"/v2/{repository}/manifests/{digest}"


def blob(repository: str, digest: str) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def test_a_cell_pulls_its_image_whole_and_in_parts(site: Site) -> None:
    site.grant((SHOP, "one", "t1/p1", SHOPS))
    with site.client(SHOP, "one") as client:
        assert client.get("/v2/").status_code == 200
        answer = client.get(manifest("t1/p1", site.digests[SHOPS]))
        assert answer.status_code == 200
        assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == site.digests[SHOPS]
        assert answer.headers["docker-content-digest"] == site.digests[SHOPS]
        for digest in site.store.blobs_of(site.digests[SHOPS])[:-1]:
            whole = client.get(blob("t1/p1", digest)).content
            assert whole == site.store.path(digest).read_bytes()
        layer = site.layer(SHOPS)
        part = client.get(blob("t1/p1", layer), headers={"Range": "bytes=5-9"})
        assert part.status_code == 206 and part.content == site.store.path(layer).read_bytes()[5:10]
        head = client.head(blob("t1/p1", layer))
        assert head.status_code == 200 and head.content == b""
        assert int(head.headers["content-length"]) == site.store.path(layer).stat().st_size


def test_another_cells_image_is_like_one_that_doesnt_exist(site: Site) -> None:
    site.grant((SHOP, "one", "t1/p1", SHOPS), (BANK, "two", "t2/p2", BANKS))
    nothing = f"sha256:{'0' * 64}"
    with site.client(SHOP, "one") as client:
        expected = client.get(manifest("t9/p9", nothing))
        assert expected.status_code == 404
        for path in (
            manifest("t2/p2", site.digests[BANKS]),
            blob("t2/p2", site.layer(BANKS)),
            # The same tenant's and project's, but not this cell's: another environment's.
            manifest("t1/p1", site.digests[NEXT]),
            blob("t1/p1", site.layer(NEXT)),
            # Known layers under a name of one's own.
            blob("t1/p1", site.layer(BANKS)),
            blob("t1/p1", nothing),
            manifest("t1/p1", SHOPS),
            "/v2/t1/p1/tags/list",
            "/v2/_catalog",
        ):
            answer = client.get(path)
            assert (answer.status_code, answer.json()) == (404, expected.json()), path
            assert client.head(path).status_code == 404


def test_who_isnt_known_gets_a_challenge_and_nothing(site: Site) -> None:
    site.grant((SHOP, "one", "t1/p1", SHOPS))
    for namespace, token in (("", ""), (SHOP, "two"), (BANK, "one"), (SHOP, "")):
        with site.client(namespace, token) as client:
            for path in ("/v2/", manifest("t1/p1", site.digests[SHOPS]), blob("t1/p1", site.layer(SHOPS))):
                answer = client.get(path)
                assert answer.status_code == 401, (namespace, token, path)
                assert answer.headers["www-authenticate"].startswith("Basic ")
    with site.client() as client:
        for header in ("Basic", "Basic !", "Bearer one", "Basic " + "A" * 4000):
            assert client.get("/v2/", headers={"Authorization": header}).status_code == 401


def test_a_cell_that_is_gone_loses_its_secret_at_once(site: Site) -> None:
    site.grant((SHOP, "one", "t1/p1", SHOPS))
    with site.client(SHOP, "one") as client:
        assert client.get("/v2/").status_code == 200
        site.grant((BANK, "two", "t2/p2", BANKS))
        assert client.get("/v2/").status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_is_written(site: Site, method: str) -> None:
    site.grant((SHOP, "one", "t1/p1", SHOPS))
    with site.client(SHOP, "one") as client:
        for path in ("/v2/t1/p1/blobs/uploads/", manifest("t1/p1", site.digests[SHOPS])):
            assert client.request(method, path).status_code == 405


def test_the_check_needs_no_registry_and_no_secret(site: Site) -> None:
    with site.client() as client:
        found = client.get(f"/v2/cytoplane/check/manifests/{names.CHECK_TAG}")
        assert found.status_code == 200
        digest = found.headers["docker-content-digest"]
        assert f"sha256:{hashlib.sha256(found.content).hexdigest()}" == digest
        assert client.get(f"/v2/cytoplane/check/manifests/{digest}").content == found.content
        for part in (found.json()["config"], *found.json()["layers"]):
            content = client.get(f"/v2/cytoplane/check/blobs/{part['digest']}").content
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == part["digest"]
        assert client.get(f"/v2/cytoplane/check/manifests/sha256:{'0' * 64}").status_code == 401


def test_it_is_ready_once_there_is_a_desired_state(site: Site) -> None:
    grants.path_in(site.config).unlink(missing_ok=True)
    with site.client() as client:
        assert client.get("/healthz").status_code == 503
        site.grant((SHOP, "one", "t1/p1", SHOPS))
        assert client.get("/healthz").status_code == 200


def test_another_certificate_is_used_at_once(site: Site) -> None:
    """One of another authority's, which the registry refuses: the sentence says what is wrong."""
    site.grant((SHOP, "one", "t1/p1", SHOPS))
    folder = site.config.agent_dir
    kept = {name: (folder / name).read_bytes() for name in ("client.cert", "client.key")}
    path = manifest("t1/p1", site.digests[SHOPS])
    with site.client(SHOP, "one") as client:
        assert client.get(path).status_code == 200
        certificate, key = Authority().issue("node")
        try:
            (folder / "client.cert").write_bytes(certificate)
            (folder / "client.key").write_bytes(key)
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["errors"][0]["message"] == "The control plane's registry doesn't answer."
        finally:
            for name, data in kept.items():
                (folder / name).write_bytes(data)
        assert client.get(path).status_code == 200
