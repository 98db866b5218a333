"""A fresh machine to its first application live: a minimal Debian root in which nothing was ever installed.

The root shares this machine's kernel and network and nothing else; what this machine was told about its
package registries and their certificates is copied, since without it none would be reached. It is removed
afterwards, with the installation that was made in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from infra.bench.report import show

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = "make,git,ca-certificates"
#: Of an installation that no other on this machine has.
SETTINGS = {
    "CYTOPLANE_NET": "3",
    "CYTOPLANE_PORTAL_PORT": "13000",
    "CYTOPLANE_APPS_PORT": "13080",
    "CYTOPLANE_AGENTS_PORT": "13443",
}
#: Settings of apt, pip and npm, and the authorities that this machine trusts.
_COPIED = (
    "etc/apt/apt.conf.d", "etc/pip.conf", "etc/xdg/pip", "etc/npmrc", "root/.npmrc", "etc/resolv.conf", "etc/hosts",
    "etc/ssl/certs/ca-certificates.crt", "usr/local/share/ca-certificates",
)  # fmt: skip
_TRUST = ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_DEFAULT_TIMEOUT")
_ENTER = """
set -e
mount --bind "$0" "$0"
mount --make-rprivate /
for folder in proc sys dev; do mount --rbind /$folder "$0/$folder"; done
mount -t tmpfs tmpfs "$0/run"
mkdir -p "$0/run/netns" "$0/run/lock"
cd "$0"
mkdir -p before
pivot_root . before
cd /
umount -l /before
exec "$@"
"""
#: What is shown of the demonstration's output, and how it is called.
_MOMENTS = (
    (r"Making the virtual environment", "packages installed"),
    (r"Preparing the installation", "environment, assets, base image"),
    (r"Every part is healthy", "every part healthy"),
    (r"is live in production", "first application live"),
    (r"^Portal ", "whole demonstration"),
)


def _root(folder: Path) -> None:
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder)],
        check=True,
    )
    for name in _COPIED:
        source, target = Path("/") / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=False, ignore_dangling_symlinks=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    # Wheels of this machine's own disk aren't a fresh machine's.
    for file in (folder / "etc/pip.conf", folder / "etc/xdg/pip/pip.conf"):
        if file.exists():
            lines = [
                line for line in file.read_text().splitlines() if "file:" not in line and "/opt" not in line
            ]
            file.write_text("\n".join(lines) + "\n")
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder / "root/cytoplane")], check=True)


def _inside(root: Path, target: str) -> subprocess.Popen[str]:
    settings = {**SETTINGS, "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    settings |= {name: os.environ[name] for name in _TRUST if name in os.environ}
    command = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in settings.items())]
    command += ["make", "-C", "/root/cytoplane", "--no-print-directory", target]
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _ENTER, str(root), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _remove(folder: Path) -> None:
    """The installation first: what runs in the root would outlive its files."""
    if (folder / "root/cytoplane").exists():
        purge = _inside(folder, "purge")
        text, _ = purge.communicate()
        if purge.returncode:
            raise SystemExit(f"make purge failed, {folder} stays:\n{text[-2000:]}")
    shutil.rmtree(folder, ignore_errors=True)


def run() -> None:
    folder = Path(tempfile.mkdtemp(prefix="cytoplane-fresh-", dir="/var/tmp"))
    moments: dict[str, float] = {}
    try:
        _root(folder)
        begun = time.monotonic()
        demo = _inside(folder, "demo")
        output = []
        assert demo.stdout is not None
        for line in demo.stdout:
            output.append(line)
            for pattern, name in _MOMENTS:
                if name not in moments and re.search(pattern, line):
                    moments[name] = time.monotonic() - begun
        if demo.wait():
            raise SystemExit("make demo failed:\n" + "".join(output[-40:]))
    finally:
        _remove(folder)
    rows = [{"moment": name, "s after make demo": seconds} for name, seconds in moments.items()]
    show(
        "fresh",
        rows,
        "A minimal Debian 12 root with git and make, nothing cached; goal for the first application: 180 s.",
    )
