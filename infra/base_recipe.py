"""Makes the base image of builds from Debian's packages: no image registry is needed.

``python3 -m infra.base_recipe CACHE`` with the system's own interpreter and nothing but its standard
library, so that it can go on while the virtual environment is made. The archive's name changes with the
recipe; two at once wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

#: What builds call it.
BASE = "localhost/cytoplane/base:latest"
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


def recipe() -> str:
    return hashlib.sha256("\n".join([PACKAGES, _NGINX, *_HOOKS]).encode()).hexdigest()[:12]


def archive_in(cache: Path) -> Path:
    """Where the image is kept."""
    return cache / f"base-{recipe()}.tar"


def make(cache: Path) -> None:
    """Make the archive unless it is there. Raises ``RuntimeError`` with what a command said."""
    archive = archive_in(cache)
    if archive.exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make(archive)


def run(command: list[str]) -> str:
    """A command's output. Raises ``RuntimeError``."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()


def _make(archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root = Path(folder) / "root.tar"
        nginx = Path(folder) / "static.conf"
        nginx.write_text(_NGINX)
        hooks = [f"--customize-hook={hook}" for hook in _HOOKS]
        hooks.append(f"--customize-hook=copy-in {nginx} /etc/cytoplane")
        run(
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
        container = run(["buildah", *store, "from", "scratch"])
        run(["buildah", *store, "add", "--quiet", container, str(root), "/"])
        run(
            [
                "buildah", *store, "config", "--workingdir", "/app",
                "--env", "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin", "--env", "LANG=C.UTF-8",
                "--env", "HOME=/tmp", container,
            ]
        )  # fmt: skip
        run(["buildah", *store, "commit", "--quiet", container, f"oci-archive:{folder}/image.tar:{BASE}"])
        Path(folder, "image.tar").rename(archive)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
