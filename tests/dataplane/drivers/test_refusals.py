"""What a cluster's refusals are in the words of the interface: who reads them must know where to look."""

from __future__ import annotations

import pytest
from pyhelm3.errors import Error

from dataplane.drivers.interface import Denied, DriverError, NoRoom, Rejected, Unreachable
from dataplane.drivers.kubernetes import api, helm

QUOTA = (
    'secrets "env-r5" is forbidden: exceeded quota: plan, requested: secrets=1, used: secrets=180, '
    "limited: secrets=180"
)
SECURITY = 'pods "r5" is forbidden: violates PodSecurity "restricted:latest": privileged'
LIMITS = 'pods "r5" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'
RIGHTS = (
    'secrets is forbidden: User "system:serviceaccount:cytoplane:controller" cannot list resource "secrets"'
)


@pytest.mark.parametrize(
    ("message", "kind", "passing"),
    [(QUOTA, NoRoom, True), (SECURITY, Rejected, False), (LIMITS, Rejected, False), (RIGHTS, Denied, False)],
)
def test_what_admission_refuses_isnt_taken_for_credentials_that_are_wrong(
    message: str, kind: type[DriverError], passing: bool
) -> None:
    for found in (api.failure(403, message), helm.failure(Error(1, b"", f"Error: {message}".encode()))):
        assert type(found) is kind, found
        assert found.passing is passing
        assert message in str(found)
        assert ("credentials" in str(found)) == (kind is Denied)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Denied), (409, Unreachable), (429, Unreachable), (503, Unreachable), (422, Rejected)],
)
def test_other_refusals_are_what_their_status_says(status: int, kind: type[DriverError]) -> None:
    assert isinstance(api.failure(status, "no"), kind)
