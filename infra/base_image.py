"""The base image of builds, made from Debian's packages: no image registry is needed.

Cached as an archive under a name that changes with the recipe, and imported into the builder's
read-only store.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from dataplane.builder.images import base_store
from dataplane.builder.plans import BASE
from infra.config import Config

PACKAGES = "python3,python3-venv,ca-certificates,nginx-light"
_NGINX = """worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  include /etc/nginx/mime.types;
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server_tokens off; sendfile on; gzip on; gzip_types text/css text/javascript application/json image/svg+xml;
  server {
    listen 8080; listen [::]:8080;
    root /srv/site; index index.html;
    location / { try_files $uri $uri/ $uri.html =404; }
    location ~ /\\. { return 404; }
  }
}
"""
_HOOKS = (
    'chroot "$1" python3 -m venv /opt/venv',
    'chroot "$1" useradd --uid 1000 --create-home --home-dir /app --shell /bin/sh app',
    'mkdir -p "$1/srv/site" "$1/etc/cytoplane"',
    'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*',
)


def _recipe() -> str:
    return hashlib.sha256("\n".join([PACKAGES, _NGINX, *_HOOKS]).encode()).hexdigest()[:12]


def ensure(config: Config, say: Callable[[str], None]) -> None:
    """Make the archive if it isn't cached, and import it where builds find it."""
    archive = config.cache / f"base-{_recipe()}.tar"
    if not archive.exists():
        say("Making the base image from Debian's packages")
        _make(archive)
    store = base_store(config)
    mark = store / "recipe"
    if mark.exists() and mark.read_text() == _recipe():
        return
    say("Importing the base image")
    store.mkdir(parents=True, exist_ok=True)
    run = config.run / "builder" / "base"
    _run(
        [
            "skopeo",
            "copy",
            "--quiet",
            f"oci-archive:{archive}",
            f"containers-storage:[overlay@{store}+{run}]{BASE}",
        ]
    )
    mark.write_text(_recipe())


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()


def _make(archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root = Path(folder) / "root.tar"
        nginx = Path(folder) / "static.conf"
        nginx.write_text(_NGINX)
        hooks = [f"--customize-hook={hook}" for hook in _HOOKS]
        hooks.append(f"--customize-hook=copy-in {nginx} /etc/cytoplane")
        _run(
            [
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={PACKAGES}",
                *hooks,
                "bookworm",
                str(root),
            ]
        )
        store = ["--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        container = _run(["buildah", *store, "from", "scratch"])
        _run(["buildah", *store, "add", "--quiet", container, str(root), "/"])
        _run(
            [
                "buildah", *store, "config", "--workingdir", "/app",
                "--env", "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin", "--env", "LANG=C.UTF-8",
                "--env", "HOME=/tmp", container,
            ]
        )  # fmt: skip
        _run(["buildah", *store, "commit", "--quiet", container, f"oci-archive:{folder}/image.tar:{BASE}"])
        Path(folder, "image.tar").rename(archive)
