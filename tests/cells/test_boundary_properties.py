"""What must hold of the compiler's tables themselves, entry by entry, for every topology.

``test_boundary.py`` looks at calls that get through; this looks at single entries, which the kernel
would obey even where today no call makes use of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cells.boundary import compile_topology, explain, model
from cells.boundary.model import ALLOW, AUDIT, DENY, EGRESS, INGRESS, TCP, UDP, Boundary, Topology
from tests.cells.topologies import changed, normal, number_of, passes, topologies, ways

many = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: (identity, remote, port, protocol, direction); a port of "listener" is whichever the gateway has.
Entry = tuple[int, int, int | str, int, int]


@st.composite
def worlds(draw: st.DrawFn) -> Topology:
    """Topologies in which some cells are in audit."""
    topology = draw(topologies())
    return replace(topology, cells=tuple(replace(cell, audit=draw(st.booleans())) for cell in topology.cells))


def entries(topology: Topology, boundary: Boundary) -> set[Entry]:
    """Everything that is let through, without the numbers that another declaration could have given."""
    gateways = {cell.gateway_identity for cell in topology.cells} | {model.IDENTITY_NORTH}
    listeners = {item.port for item in boundary.listeners} | {door.port for door in boundary.doors}
    found: set[Entry] = set()
    for identity, policy in boundary.identities.items():
        for remote, port, protocol, direction, verdict, _ in policy.policy:
            if verdict == DENY:
                continue
            at_gateway = (remote if direction == EGRESS else identity) in gateways
            found.add((identity, remote, "listener" if at_gateway and port in listeners else port, protocol, direction))  # fmt: skip
    return found


def outside(boundary: Boundary) -> set[tuple[int, str, int, int]]:
    return {
        (identity, network, port, protocol)
        for identity, policy in boundary.identities.items()
        for network, port, protocol, verdict, _ in policy.external
        if verdict != DENY
    }


def tenants(topology: Topology) -> dict[int, int]:
    """Identity → tenant, of workloads and cells' gateways."""
    found = {identity: cell.tenant for identity, (cell, _) in topology.by_identity().items()}
    return found | {cell.gateway_identity: cell.tenant for cell in topology.cells}


@many
@given(worlds())
def test_no_entry_joins_two_tenants_or_two_environments(topology: Topology) -> None:
    """Not even half a one: an entry at one end alone would wait for a mistake at the other."""
    tenant = tenants(topology)
    stage = {i: cell.environment for i, (cell, _) in topology.by_identity().items()}
    stage |= {cell.gateway_identity: cell.environment for cell in topology.cells}
    everyone = topology.by_identity()
    boundary = compile_topology(topology)
    platform = {model.IDENTITY_NORTH, model.IDENTITY_RESOLVER}
    doors = {door.port for door in boundary.doors}
    for identity, policy in boundary.identities.items():
        for remote, port, protocol, direction, verdict, _ in policy.policy:
            if identity not in tenant:
                continue
            if remote in tenant:
                assert (tenant[identity], stage[identity]) == (tenant[remote], stage[remote])
                continue
            assert remote in platform or verdict == DENY, "a workload's peers are named, one by one"
            if remote == model.IDENTITY_RESOLVER:
                assert (port, direction) == (53, EGRESS)
            elif direction == EGRESS:
                assert (port in doors, protocol) == (True, TCP)
            else:
                public = {(e.port, number_of(e)) for e in everyone[identity][1].endpoints if e.visibility == "public"}  # fmt: skip
                assert (port, protocol) in public


@many
@given(worlds())
def test_every_entry_has_its_other_half_with_the_same_verdict(topology: Topology) -> None:
    boundary = compile_topology(topology)
    known = tenants(topology)
    halves = {
        (identity, *entry[:5]) for identity, policy in boundary.identities.items() for entry in policy.policy
    }
    for identity, remote, port, protocol, direction, verdict in halves:
        if verdict == DENY or identity not in known or remote == model.IDENTITY_RESOLVER:
            continue
        mirror = (remote, identity, port, protocol, INGRESS if direction == EGRESS else EGRESS, verdict)
        assert mirror in halves


@many
@given(worlds())
def test_the_floor_is_handed_on_whole_and_nothing_of_it_is_declared(topology: Topology) -> None:
    boundary = compile_topology(topology)
    assert boundary.floor == topology.floor
    floor = [ipaddress.ip_network(text) for text, _ in topology.floor]
    for identity, text, _, protocol in outside(boundary):
        network = ipaddress.ip_network(text)
        inside = [f for f in floor if f.version == network.version and network.subnet_of(f)]  # type: ignore[arg-type]
        assert not inside
        assert identity in topology.by_identity()
        assert protocol in (TCP, UDP)


@many
@given(worlds())
def test_no_workload_has_an_entry_for_the_node_or_the_world(topology: Topology) -> None:
    boundary = compile_topology(topology)
    for identity in tenants(topology):
        for remote, _, _, _, verdict, _ in boundary.identities[identity].policy:
            assert verdict == DENY or remote not in (0, model.IDENTITY_NODE, model.IDENTITY_WORLD)


def _less(topology: Topology) -> Iterator[Topology]:
    """The topology without one of its declarations, in every way."""
    for identity, (_, workload) in topology.by_identity().items():
        for gone in range(len(workload.connections)):
            rest = workload.connections[:gone] + workload.connections[gone + 1 :]
            yield changed(topology, identity, connections=rest)
        for gone in range(len(workload.endpoints)):
            rest_of_endpoints = workload.endpoints[:gone] + workload.endpoints[gone + 1 :]
            yield changed(topology, identity, endpoints=rest_of_endpoints)
            narrower = replace(workload.endpoints[gone], visibility="cell", hosts=())
            yield changed(
                topology,
                identity,
                endpoints=(*workload.endpoints[:gone], narrower, *workload.endpoints[gone + 1 :]),
            )
    for cell in topology.cells:
        yield replace(topology, cells=tuple(c for c in topology.cells if c is not cell))
        for changed_cell in (replace(cell, audit=False), replace(cell, strict=True)):
            yield replace(topology, cells=tuple(changed_cell if c is cell else c for c in topology.cells))


@many
@given(worlds(), st.data())
def test_taking_a_declaration_back_never_adds_an_entry(topology: Topology, data: st.DataObject) -> None:
    fewer = list(_less(topology))
    smaller = data.draw(st.sampled_from(fewer))
    before, after = compile_topology(topology), compile_topology(smaller)
    assert entries(smaller, after) <= entries(topology, before)
    assert outside(after) <= outside(before)
    assert ways(smaller, after) <= {*ways(topology, before)}
    for identity, names in after.names.items():
        assert set(names) <= set(before.names.get(identity, {}))


@many
@given(worlds(), st.randoms(use_true_random=False))
def test_saying_it_in_another_order_says_the_same(topology: Topology, dice) -> None:  # type: ignore[no-untyped-def]
    def mixed(values: tuple) -> tuple:
        return tuple(dice.sample(values, k=len(values)))

    again = replace(
        topology,
        cells=mixed(
            tuple(
                replace(
                    cell,
                    workloads=mixed(
                        tuple(
                            replace(w, endpoints=mixed(w.endpoints), connections=mixed(w.connections))
                            for w in cell.workloads
                        )
                    ),
                )
                for cell in topology.cells
            )
        ),
    )
    assert normal(compile_topology(again)) == normal(compile_topology(topology))


@many
@given(worlds())
def test_an_endpoint_that_receives_names_hears_gateways_and_itself_alone(topology: Topology) -> None:
    boundary = compile_topology(topology)
    for cell in topology.cells:
        for workload in cell.workloads:
            own = {cell.gateway_identity, model.IDENTITY_NORTH, workload.identity}
            for endpoint in workload.endpoints:
                if not endpoint.callers:
                    continue
                for identity in boundary.identities:
                    if passes(boundary, identity, workload.identity, endpoint.port, TCP):
                        assert identity in own
                # An audited wildcard would let a forged name through as well.
                for other in tenants(topology).keys() - own:
                    assert _verdict(boundary, other, workload.identity, endpoint.port, TCP) in (0, DENY)


@many
@given(worlds())
def test_names_lead_to_services_that_answer_the_asker(topology: Topology) -> None:
    """A name is known only if at least one port behind it can be called, and is somebody's own."""
    boundary = compile_topology(topology)
    everyone = topology.by_identity()
    owners = {w.service4: i for i, (_, w) in everyone.items()} | {
        w.service6: i for i, (_, w) in everyone.items()
    }
    open_ways = {(way.consumer, way.provider) for way in ways(topology, boundary)}
    for asker, names in boundary.names.items():
        for name, addresses in names.items():
            if addresses == (topology.door4, topology.door6):
                assert any(c.external and c.external.host == name for c in everyone[asker][1].connections)
                continue
            (target,) = {owners[address] for address in addresses}
            assert target == asker or (asker, target) in open_ways or _audited(boundary, asker, target)
            cell, workload = everyone[target]
            assert name in (workload.name, f"{workload.name}.{cell.project}")
            if name == workload.name:
                assert cell.number == everyone[asker][0].number, "a short name is one's own cell's"


@many
@given(worlds())
def test_every_entry_between_two_workloads_is_explained_and_every_explanation_has_its_entries(
    topology: Topology,
) -> None:
    boundary = compile_topology(topology)
    everyone = topology.by_identity()
    words = {TCP: "tcp", UDP: "udp"}
    for source in everyone:
        for target, (_, provider) in everyone.items():
            asked = {(e.port, number_of(e)) for e in provider.endpoints} | {(9999, TCP), (9999, UDP)}
            for port, protocol in asked:
                verdict = _verdict(boundary, source, target, port, protocol)
                answer = explain(topology, source, target, port, words[protocol])
                if answer.via_gateway:
                    assert verdict != ALLOW, "what passes a gateway has no direct way beside it"
                    continue
                assert answer.allowed == (verdict == ALLOW), (answer, verdict)


@many
@given(worlds())
def test_audit_opens_only_what_the_projects_own_declarations_could(topology: Topology) -> None:
    boundary = compile_topology(topology)
    everyone = topology.by_identity()
    calm = replace(topology, cells=tuple(replace(cell, audit=False) for cell in topology.cells))
    quiet = compile_topology(calm)
    # What passes without reports is the same with and without audit.
    for identity, policy in boundary.identities.items():
        certain = {entry for entry in policy.policy if entry[4] == ALLOW}
        assert certain == {entry for entry in quiet.identities[identity].policy if entry[4] == ALLOW}
    for identity, policy in boundary.identities.items():
        for remote, port, protocol, direction, verdict, _ in policy.policy:
            if verdict != AUDIT:
                continue
            assert protocol in (TCP, UDP)
            consumer, provider = (identity, remote) if direction == EGRESS else (remote, identity)
            cell, _ = everyone[consumer]
            other, workload = everyone[provider]
            assert cell.audit, "audit is the caller's: it is the caller who would have to declare"
            assert (cell.tenant, cell.environment) == (other.tenant, other.environment)
            if cell.number == other.number:
                continue
            reachable = [e for e in workload.endpoints if (e.port, number_of(e)) == (port, protocol)]
            assert reachable
            assert all(e.visibility != "cell" and not e.callers for e in reachable)
        if any(entry[3] == AUDIT for entry in policy.external):
            assert everyone[identity][0].audit


@many
@given(topologies())
def test_without_audit_nothing_is_audited(topology: Topology) -> None:
    boundary = compile_topology(topology)
    for policy in boundary.identities.values():
        assert all(entry[4] != AUDIT for entry in policy.policy)
        assert all(entry[3] != AUDIT for entry in policy.external)


@many
@given(worlds(), st.data())
def test_a_change_in_one_tenant_changes_nothing_of_another(topology: Topology, data: st.DataObject) -> None:
    """The entries of one tenant are a function of its own declarations."""
    assume(len({cell.tenant for cell in topology.cells}) > 1)
    leaver = data.draw(st.sampled_from(sorted({cell.tenant for cell in topology.cells})))
    rest = replace(topology, cells=tuple(c for c in topology.cells if c.tenant != leaver))
    before, after = compile_topology(topology), compile_topology(rest)
    for identity in tenants(rest):
        assert set(before.identities[identity].policy) == set(after.identities[identity].policy)
        assert set(before.identities[identity].external) == set(after.identities[identity].external)
        assert before.names.get(identity) == after.names.get(identity)


def _verdict(boundary: Boundary, source: int, target: int, port: int, protocol: int) -> int:
    """What the kernel would say of a packet between two workloads: the stricter of both ends; 0 for no entry."""
    ends = []
    for local, remote, direction in ((source, target, EGRESS), (target, source, INGRESS)):
        found = {
            entry[4]
            for entry in boundary.identities[local].policy
            if entry[0] in (remote, 0)
            and entry[1] in (port, 0)
            and entry[2] == protocol
            and entry[3] == direction
        }
        ends.append(next((v for v in (DENY, ALLOW, AUDIT) if v in found), 0))
    return next(v for v in (DENY, 0, AUDIT, ALLOW) if v in ends)


def _audited(boundary: Boundary, source: int, target: int) -> bool:
    return any(
        entry[0] == target and entry[3] == EGRESS and entry[4] == AUDIT
        for entry in boundary.identities[source].policy
    )
