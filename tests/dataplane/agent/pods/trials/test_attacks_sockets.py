"""The machine's attacks by sockets and netlink, with every capability in a pod's network: here between pods of
one node and between nodes, through a CNI's links and routes. What is tried stands in tests/bpf."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataplane import addresses
from tests.bpf.laboratory import Member
from tests.bpf.test_attacks_sockets import (
    test_a_message_with_a_source_of_its_own_choice_reaches_nobody,
    test_a_socket_bound_to_anothers_address_reaches_nobody,
    test_a_translation_of_its_own_hides_nobody,
    test_an_address_taken_by_netlink_is_worth_nothing,
    test_data_with_the_opening_and_many_paths_are_no_way_around,
    test_datagrams_in_fragments_pass_where_whole_ones_do,
    test_raw_sockets_have_no_more_rights,
    test_segments_that_the_kernel_cuts_are_judged_as_a_whole,
)
from tests.cluster import LONGEST
from tests.dataplane.agent.pods.trials.stage import CLIENT, REPLICAS, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
__all__ = [
    "test_a_message_with_a_source_of_its_own_choice_reaches_nobody",
    "test_a_socket_bound_to_anothers_address_reaches_nobody",
    "test_a_translation_of_its_own_hides_nobody",
    "test_an_address_taken_by_netlink_is_worth_nothing",
    "test_data_with_the_opening_and_many_paths_are_no_way_around",
    "test_datagrams_in_fragments_pass_where_whole_ones_do",
    "test_raw_sockets_have_no_more_rights",
    "test_segments_that_the_kernel_cuts_are_judged_as_a_whole",
]
#: ``a`` may call ``b`` and nobody may call ``c``.
PAIRS = {"on one node": ("r23", "r21", "r24"), "between nodes": ("r23", "r22", "r25")}
NETNS = Path("/run/netns")


@dataclass(frozen=True)
class Space:
    """A pod's network namespace under a name that ``ip`` knows."""

    path: Path


class Pods:
    """The laboratory's words for three pods."""

    def __init__(self, stage: Stage, names: tuple[str, ...]) -> None:
        self._stage = stage
        self.members = {}
        for letter, replica in zip("abc", names, strict=True):
            path = NETNS / f"{stage.plane.config.name}-trial-{letter}"
            path.unlink(missing_ok=True)
            path.symlink_to(stage.path(replica))
            identity = REPLICAS[replica][1]
            pair, service = stage.addresses(replica), addresses.service(stage.plane.config, identity)
            space: object = Space(path)
            self.members[letter] = Member(letter, identity, *pair, *service, space)  # type: ignore[arg-type]

    def denials(self) -> set[tuple[str, int]]:
        """What nodes refused this caller since the last time; kernel housekeeping left out."""
        found = self._stage.denied()
        return {(why, port) for who, _, port, why in found if who == CLIENT and why != "NEIGHBOUR"}

    def ip(self, *words: str) -> str:
        name = self.members["a"].namespace.path.name
        return subprocess.run(["ip", "-n", name, *words], capture_output=True, text=True, check=True).stdout

    def own(self) -> dict[str, set[str]]:
        """Addresses of its interface, and its length of packets."""
        (link,) = json.loads(self.ip("-json", "address", "show", "dev", "eth0"))
        found = {f"{row['local']}/{row['prefixlen']}" for row in link["addr_info"]}
        return {"addresses": found, "mtu": {str(link["mtu"])}}

    def close(self, before: dict[str, set[str]]) -> None:
        """As it was: the pod goes on to be another attack's."""
        path = self.members["a"].namespace.path
        subprocess.run(["ip", "netns", "exec", path.name, "nft", "flush", "ruleset"], check=True)
        for address in self.own()["addresses"] - before["addresses"]:
            self.ip("address", "del", address, "dev", "eth0")
        self.ip("link", "set", "eth0", "mtu", *before["mtu"])
        for member in self.members.values():
            member.namespace.path.unlink()


@pytest.fixture(params=PAIRS)
def three(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Pods]:
    made = Pods(stage, PAIRS[request.param])
    before = made.own()
    made.denials()
    yield made
    made.close(before)
