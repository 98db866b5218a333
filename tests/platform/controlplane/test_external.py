"""Where PostgreSQL and Redis are looked for, and how much of TLS is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from kombu.utils.url import parse_url

from controlplane import external

SOCKETS = Path("/run/here")


def test_without_settings_both_are_the_installations_own() -> None:
    found = external.database({}, SOCKETS)
    assert (found["HOST"], found["NAME"], found["USER"]) == ("/run/here", "cytoplane", "cytoplane")
    assert "sslmode" not in found["OPTIONS"]
    assert external.redis_url({}, SOCKETS / "redis.sock") == "unix:///run/here/redis.sock"


def test_a_database_elsewhere_is_verified_unless_it_is_said_otherwise() -> None:
    elsewhere = {"CYTOPLANE_DATABASE_HOST": "db.example.com", "CYTOPLANE_DATABASE_PASSWORD": "secret"}
    found = external.database(elsewhere, SOCKETS)
    assert (found["HOST"], found["PASSWORD"]) == ("db.example.com", "secret")
    assert found["OPTIONS"]["sslmode"] == "verify-full"
    assert found["OPTIONS"]["sslrootcert"] == external.PUBLIC_AUTHORITIES
    own = external.database({**elsewhere, "CYTOPLANE_DATABASE_CA": "/ca.crt"}, SOCKETS)
    assert own["OPTIONS"]["sslrootcert"] == "/ca.crt"
    plain = external.database({**elsewhere, "CYTOPLANE_DATABASE_TLS": "disable"}, SOCKETS)
    assert plain["OPTIONS"]["sslmode"] == "disable"
    assert "sslrootcert" not in plain["OPTIONS"]


@pytest.mark.parametrize("mode", ["prefer", "allow", "verify"])
def test_half_of_tls_isnt_offered(mode: str) -> None:
    with pytest.raises(ValueError, match="CYTOPLANE_DATABASE_TLS"):
        external.database({"CYTOPLANE_DATABASE_HOST": "db", "CYTOPLANE_DATABASE_TLS": mode}, SOCKETS)
    with pytest.raises(ValueError, match="CYTOPLANE_REDIS_TLS"):
        external.redis_url({"CYTOPLANE_REDIS_HOST": "redis", "CYTOPLANE_REDIS_TLS": mode}, SOCKETS)


@pytest.mark.parametrize("host", ["redis.example.com", "fd00::5"])
def test_redis_and_the_broker_understand_the_same_address(host: str) -> None:
    password = "a/b:c@d?e%f&g"
    url = external.redis_url(
        {"CYTOPLANE_REDIS_HOST": host, "CYTOPLANE_REDIS_PASSWORD": password, "CYTOPLANE_REDIS_DB": "3"},
        SOCKETS,
    )
    settings = redis.Redis.from_url(url).connection_pool.connection_kwargs
    assert (settings["host"], settings["port"], settings["db"]) == (host, 6379, 3)
    assert settings["password"] == password
    assert settings["ssl_cert_reqs"] == "required"
    assert settings["ssl_check_hostname"] is True
    broker = parse_url(url)
    assert (broker["hostname"], broker["password"], broker["virtual_host"]) == (host, password, "3")
    assert broker["ssl"]["ssl_ca_certs"] == external.PUBLIC_AUTHORITIES
    assert broker["ssl"]["ssl_check_hostname"] is True


def test_redis_without_tls_has_to_be_asked_for() -> None:
    plain = {"CYTOPLANE_REDIS_HOST": "redis", "CYTOPLANE_REDIS_TLS": "disable"}
    assert external.redis_url(plain, SOCKETS) == "redis://redis:6379/0"
