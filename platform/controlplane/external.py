"""Where PostgreSQL and Redis are: the installation's own unix sockets, or servers elsewhere by environment.

Servers elsewhere are named by ``CYTOPLANE_DATABASE_*`` and ``CYTOPLANE_REDIS_*``. Over a network TLS with
a verified server is what one gets without asking; less has to be asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

#: Debian's collection of public authorities: what a server's certificate is checked against where none is named.
PUBLIC_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
#: libpq's words for how much of TLS is required, from nothing to all of it.
DATABASE_TLS = ("disable", "require", "verify-ca", "verify-full")
REDIS_TLS = ("disable", "verify-full")


def database(environ: Mapping[str, str], socket: Path) -> dict[str, Any]:
    """Django's settings of the database. Raises ``ValueError`` for a TLS mode that there isn't."""
    host = environ.get("CYTOPLANE_DATABASE_HOST", "")
    # One pool a process: streams and long polls give their connection back between reads.
    options: dict[str, Any] = {"pool": {"min_size": 1, "max_size": 12, "timeout": 10}}
    if host and not host.startswith("/"):
        mode = _mode(environ, "CYTOPLANE_DATABASE_TLS", DATABASE_TLS)
        options |= {"sslmode": mode, "connect_timeout": 5}
        if mode.startswith("verify"):
            options["sslrootcert"] = environ.get("CYTOPLANE_DATABASE_CA") or PUBLIC_AUTHORITIES
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": environ.get("CYTOPLANE_DATABASE", "cytoplane"),
        "USER": environ.get("CYTOPLANE_DATABASE_USER", "cytoplane"),
        "PASSWORD": environ.get("CYTOPLANE_DATABASE_PASSWORD", ""),
        "HOST": host or str(socket),
        "PORT": environ.get("CYTOPLANE_DATABASE_PORT", ""),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


def redis_url(environ: Mapping[str, str], socket: Path) -> str:
    """Redis as a URL that redis-py and Celery's broker read alike. Raises ``ValueError``."""
    given = environ.get("CYTOPLANE_REDIS", "")
    if given:
        return given
    host = environ.get("CYTOPLANE_REDIS_HOST", "")
    if not host:
        return f"unix://{socket}"
    mode = _mode(environ, "CYTOPLANE_REDIS_TLS", REDIS_TLS)
    user, password = (
        quote(environ.get(f"CYTOPLANE_REDIS_{part}", ""), safe="") for part in ("USER", "PASSWORD")
    )
    place = f"[{host}]" if ":" in host else host
    address = (
        f"{place}:{environ.get('CYTOPLANE_REDIS_PORT') or 6379}/{environ.get('CYTOPLANE_REDIS_DB') or 0}"
    )
    credentials = f"{user}:{password}@" if user or password else ""
    if mode == "disable":
        return f"redis://{credentials}{address}"
    tls = {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": "true",
        "ssl_ca_certs": environ.get("CYTOPLANE_REDIS_CA") or PUBLIC_AUTHORITIES,
    }
    return f"rediss://{credentials}{address}?{urlencode(tls)}"


def _mode(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    mode = environ.get(name) or "verify-full"
    if mode not in known:
        raise ValueError(f"{name} is {mode}: it can be {', '.join(known)}")
    return mode
