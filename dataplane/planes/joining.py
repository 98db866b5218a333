"""How a machine or a cluster joins a plane: one command, and what it fetches.

The command fetches a script from the agents' listener and runs it. That listener's certificate is from
the installation's own authority, which no machine knows yet, so the command carries the digest of the
listener's public key: curl speaks to nobody else (``--pinnedpubkey``; ``-k`` leaves out only the check
that can't be made). The key is replaced once in 30 days; a command that was printed just before fails
and another one is made. The token is in the command's environment: neither in an address nor in the
arguments of a process. What the script fetches next is only given to a token that is still good, and
compared with a digest that the script holds.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shlex
import tarfile
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.conf import settings

from controlplane.errors import CytoplaneError
from dataplane.planes import server_certificate
from dataplane.planes.models import Plane

#: Engine → what joins there.
KINDS = {Plane.Engine.MACHINE: "machine", Plane.Engine.KUBERNETES: "cluster"}
_ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = Path(__file__).with_name("join")
#: What a node's parts need of the tree.
_NODE = ("bpf", "cells/__init__.py", "cells/boundary", "dataplane", "infra", "requirements.lock")
_LEFT_OUT = (
    "dataplane/planes/", "infra/bench/", "infra/charts/", "infra/cluster/", "infra/images/", "infra/kubernetes/",
)  # fmt: skip
_CHART = "infra/charts/data-plane"


def command(plane: Plane, token: str) -> str:
    """The one line that is typed as root on the machine, or where `helm` reaches the cluster."""
    address = f"{settings.CONFIG.agents_url}/join/{KINDS[plane.engine]}"
    number = settings.CONFIG.net if plane.net is None else plane.net
    return (
        f"curl -fsSk --pinnedpubkey {shlex.quote(pin())} {shlex.quote(address)} | "
        f"CYTOPLANE_NET={number} CYTOPLANE_TOKEN={shlex.quote(token)} sh"
    )


def pin() -> str:
    """The listener's public key in curl's words."""
    file = settings.CONFIG.server_tls / "server.pem"
    try:
        if not file.exists():
            server_certificate.renew()
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        raise CytoplaneError("unavailable", part="the agents' listener (it has no certificate)") from None
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"sha256//{base64.b64encode(hashlib.sha256(key).digest()).decode()}"


def script(kind: str) -> str:
    """The script for a machine or a cluster; there is no secret in it. Raises ``KeyError``."""
    values = {
        "url": settings.CONFIG.agents_url,
        "pin": pin(),
        "digest": hashlib.sha256(archive(kind)).hexdigest(),
    }
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return (_SCRIPTS / f"{kind}.sh").read_text().replace("# values\n", head)


def archive(kind: str) -> bytes:
    """What the script of that kind fetches. Raises ``KeyError``."""
    return {"machine": node_code, "cluster": chart}[kind]()


@cache
def node_code() -> bytes:
    """The code of a machine's parts, as a compressed archive: no control plane in it."""
    return _archive(_ROOT, _NODE, _LEFT_OUT)


@cache
def chart() -> bytes:
    """The chart of a cluster's parts, as Helm takes it. Raises ``FileNotFoundError`` where there is none."""
    folder = _ROOT / _CHART
    return _archive(folder.parent, [folder.name], (f"{folder.name}/ci/",))


def _archive(root: Path, names: list[str] | tuple[str, ...], left_out: tuple[str, ...]) -> bytes:
    """The same bytes for the same files."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as found,  # type: ignore[arg-type]
    ):
        for name in names:
            start = root / name
            files = sorted(path for path in start.rglob("*") if path.is_file()) if start.is_dir() else [start]
            for file in files:
                inside = file.relative_to(root)
                if file.suffix == ".pyc" or inside.as_posix().startswith(left_out):
                    continue
                data = file.read_bytes()
                entry = tarfile.TarInfo(str(inside))
                entry.size, entry.mode = len(data), 0o755 if file.stat().st_mode & 0o100 else 0o644
                found.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
