"""Cells whose replicas are pods of one node: their desired state, unit by unit, and the pods themselves."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import partial
from typing import Any

from cells.boundary.around import Around
from cells.boundary.compiler import compile_cell, compile_platform
from cells.boundary.encoding import encode
from cells.boundary.model import Cell, Replica, Topology
from dataplane import addresses
from dataplane.agent.pods.verify import LABEL
from dataplane.drivers import location_for
from infra.bench import cells
from infra.bench.clusters import until
from infra.cluster.client import Client
from infra.cluster.images import BUSYBOX
from infra.config import Config

#: Replicas of a cell.
EACH = 4
#: Below it are the platform's own identities; a cell's are a hundred times its number.
_FIRST_CELL = 11
_BEGIN_SECONDS = 900.0
_CONTAINER = {
    "name": "app",
    "image": BUSYBOX,
    "command": ["sleep", "1000000"],
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
_PROBE = {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 30}


class World:
    """``most`` cells at most; those that are made are compiled with all that they call."""

    def __init__(self, config: Config, client: Client, node: str, most: int) -> None:
        self._config, self._client, self._node = config, client, node
        self._platform = _platform(config)
        dice = random.Random(5)  # noqa: S311  worlds, no secrets
        last = _FIRST_CELL + most - 1
        drawn = [cells.cell(n, last, dice) for n in range(_FIRST_CELL, last + 1)]
        self._cells = [self._addressed(cell) for cell in drawn]
        #: Replicas of each component, as drawn.
        self._shape = {w.identity: len(w.replicas) for cell in drawn for w in cell.workloads}
        self._around = Around(tuple(self._cells))
        self._places = {cell.number: location_for(cell.number) for cell in self._cells}
        self._replicas = 0
        self._generation = 0
        #: Cells that run, with their replicas: (identity, replica's number).
        self.running: dict[int, list[tuple[int, int]]] = {}

    def close(self) -> None:
        for number in self.running:
            self._client.remove(f"/api/v1/namespaces/{self._places[number]}")

    # Desired state.
    def beginning(self) -> dict[str, Any]:
        """An answer with no cells in it."""
        return self._answer({0: {"endpoints": [], "boundary": encode(compile_platform(self._platform))}}, 0)

    def grow(self, pods: int) -> dict[str, Any]:
        """The answer that brings cells until there are so many replicas."""
        fresh = self._cells[len(self.running) : -(-pods // EACH)]
        for cell in fresh:
            self.running[cell.number] = [
                (workload.identity, self._next())
                for workload in cell.workloads
                for _ in range(self._shape[workload.identity])
            ]
        return self._answer({cell.number: self._unit(cell) for cell in fresh})

    def renew(self, turn: int) -> tuple[dict[str, Any], str, str, str]:
        """The answer in which one replica has another's place; the namespace, who goes and who comes."""
        number = list(self.running)[turn % len(self.running)]
        identity, old = self.running[number].pop(0)
        self.running[number].append((identity, self._next()))
        fresh = self.running[number][-1][1]
        cell = next(cell for cell in self._cells if cell.number == number)
        answer = self._answer({number: self._unit(cell)})
        return answer, self._places[number], f"r{old}", f"r{fresh}"

    def _next(self) -> int:
        self._replicas += 1
        return self._replicas

    def _answer(self, units: dict[int, dict[str, Any]], base: int | None = None) -> dict[str, Any]:
        before, self._generation = self._generation, self._generation + 1
        return {
            "plane": 1,
            "generation": self._generation,
            "base": before if base is None else base,
            "mark": "bench",
            "removed": [],
            "units": {str(number): json.loads(json.dumps(unit)) for number, unit in units.items()},
        }

    def _unit(self, cell: Cell) -> dict[str, Any]:
        own = self.running[cell.number]
        boundary = compile_cell(self._platform, self._placed(cell, own), self._around)
        return {
            "endpoints": [self._endpoint(cell.number, identity, number) for identity, number in own],
            "boundary": encode(boundary),
        }

    def _addressed(self, cell: Cell) -> Cell:
        """The cell with addresses of this installation, and nothing that runs."""
        first = EACH * (cell.number - _FIRST_CELL) + 8
        gateway = addresses.cell_gateway(self._config, cell.number)
        workloads = []
        for place, workload in enumerate(cell.workloads):
            service = addresses.service(self._config, first + place)
            workloads.append(replace(workload, service4=service.v4, service6=service.v6, replicas=()))
        return replace(cell, gateway4=gateway.v4, gateway6=gateway.v6, workloads=tuple(workloads))

    def _placed(self, cell: Cell, own: list[tuple[int, int]]) -> Cell:
        replicas = {
            workload.identity: tuple(
                Replica(f"r{number}", *self._pair(number), serving=True)
                for identity, number in own
                if identity == workload.identity
            )
            for workload in cell.workloads
        }
        workloads = (replace(workload, replicas=replicas[workload.identity]) for workload in cell.workloads)
        return replace(cell, workloads=tuple(workloads))

    def _index(self, replica: int) -> int:
        return addresses.REPLICA_FIRST + replica

    def _pair(self, replica: int) -> addresses.Pair:
        return addresses.workload(self._config, self._index(replica))

    def _endpoint(self, cell: int, identity: int, replica: int) -> dict[str, Any]:
        pair = self._pair(replica)
        return {
            "id": f"r{replica}",
            "number": self._index(replica),
            "identity": identity,
            "cell": cell,
            "v4": pair.v4,
            "v6": pair.v6,
            "translate": True,
            "state": "run",
            "process": {"image": BUSYBOX, "command": None, "stop_grace": 1, "probe": _PROBE},
            "labels": {},
            "pod": {"namespace": self._places[cell]},
        }

    # Pods.
    def _has_account(self, place: str) -> bool:
        found = self._client.get(f"/api/v1/namespaces/{place}/serviceaccounts/default").json()
        return bool(found.get("secrets"))

    def create_missing(self) -> None:
        """A namespace for each cell that has none, and the pods of its replicas."""
        known = {item["metadata"]["name"] for item in self._client.document("/api/v1/namespaces")["items"]}
        for number, replicas in self.running.items():
            place = self._places[number]
            if place in known:
                continue
            self._client.create("/api/v1/namespaces", {"metadata": {"name": place}})
            until(partial(self._has_account, place), _BEGIN_SECONDS, f"{place} has no account")
            for _, replica in replicas:
                self.create(place, f"r{replica}")

    def create(self, place: str, replica: str) -> None:
        spec = {
            "containers": [_CONTAINER],
            "nodeName": self._node,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
        }
        metadata = {"name": replica, "labels": {LABEL: replica}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self._client.create(f"/api/v1/namespaces/{place}/pods", pod)

    def delete(self, place: str, replica: str) -> None:
        self._client.remove(f"/api/v1/namespaces/{place}/pods/{replica}")

    def ready(self) -> set[str]:
        """Replicas whose pods run."""
        found = self._client.document("/api/v1/pods", labelSelector=LABEL, resourceVersion="0")["items"]
        return {item["metadata"]["name"] for item in found if item["status"].get("phase") == "Running"}

    def await_all(self) -> None:
        wanted = {f"r{replica}" for own in self.running.values() for _, replica in own}
        until(lambda: wanted <= self.ready(), _BEGIN_SECONDS, "not all pods run", 1.0)


def _platform(config: Config) -> Topology:
    """A plane without cells."""
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    resolver = addresses.workload(config, addresses.RESOLVER)
    door = addresses.service(config, addresses.PUBLIC_DOOR_SERVICE)
    own = (config.workloads4, config.services4, config.workloads6, config.services6)
    return Topology(
        cells=(),
        north4=north.v4,
        north6=north.v6,
        door4=door.v4,
        door6=door.v6,
        resolver4=resolver.v4,
        resolver6=resolver.v6,
        floor=tuple((str(network), "FLOOR") for network in own),
    )
