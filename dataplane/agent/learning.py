"""Addresses that are open because of a name: opened before the asker has its answer, closed when it has ended.

What the resolver says is checked against what the snapshot declares, and no answer opens the floor. An
address stays open for the answer's time, a grace, and for as long as a connection to it is. A
declaration that is taken back closes at once. What is in force is in the kernel: an agent that starts
takes it over, with its small file or without. Times are the machine's since its start, which is as long as
the kernel has its tables: a clock that is set closes nothing early and keeps nothing open.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bpf.tables import Tables
from cells.boundary.model import IDENTITY_WORLD, NameEntry
from cells.boundary.names import grants, matches
from dataplane.client import write_private
from dataplane.resolver.lessons import GRACE, Lesson
from dataplane.resolver.lookups import MOST_ADDRESSES, TTL_CEILING, TTL_FLOOR

log = logging.getLogger("cytoplane.agent")
#: Of one identity: (address, port, protocol).
MOST = 1024
#: Answers of one identity that are remembered: what a wildcard covers may be any number of names of one address.
MOST_ANSWERS = 4 * MOST
#: Seconds after which an address that is only open for its connections is looked at again.
AGAIN = 15
#: Identities whose connections are looked at in one go, and seconds after which none is begun: meanwhile nobody's
#: question is answered.
AT_ONCE, LONG_ENOUGH = 50, 0.3
#: Different refusals in one report.
_MOST_REFUSALS = 500
FLOOR, QUOTA = "NAME_FLOOR", "NAME_QUOTA"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Way(NamedTuple):
    """What is open."""

    address: str
    port: int
    protocol: int


class Learning:
    """``cut`` is told the identities that lost something. Calls from any thread."""

    def __init__(
        self,
        tables: Tables,
        file: Path,
        cut: Callable[[set[int]], None] = lambda identities: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables, self._file, self._cut, self._now = tables, file, cut, now
        self._lock = threading.RLock()
        self._declared: dict[int, list[NameEntry]] = {}
        self._floor: list[Network] = []
        #: identity → (name, address) → when its answer ends.
        self._answers: dict[int, dict[tuple[str, str], float]] = {}
        #: What the kernel had and no file explains: identity → way → (rule, when it ends).
        self._found: dict[int, dict[Way, tuple[int, float]]] = {}
        #: What is open: identity → way → rule.
        self._open: dict[int, dict[Way, int]] = {}
        #: identity → when its declarations changed: what the resolver kept from before may be closed.
        self._stamps: dict[int, int] = {}
        #: What an agent before closed, nobody knows any more: with a new one, everything is asked for again.
        self._born = time.time_ns()
        self._begun = False
        self._changed = False
        self._refusals: Counter[tuple[int, str, str, int, int]] = Counter()
        #: Since the agent's start.
        self.refused = 0
        self.problem = ""

    # What may be learned.
    def update(self, boundary: Mapping[str, Any], floor: Iterable[str], emptied: Iterable[int] = ()) -> None:
        """Take over what is declared; what isn't any more is closed before this returns. ``emptied``: identities
        for which the kernel has nothing any more: what is still declared for them is opened again."""
        declared = {
            int(identity): [(str(e[0]), int(e[1]), int(e[2]), int(e[3])) for e in entries]
            for identity, entries in boundary.get("external_names", {}).items()
        }
        with self._lock:
            self.set_floor(floor)
            if not self._begun:
                self._take_over(declared)
            identities = {*self._declared, *declared, *self._open, *self._answers, *self._found}
            changed = {i for i in identities if self._declared.get(i) != declared.get(i) or not self._begun}
            for identity in emptied:
                if self._open.pop(identity, None) is not None:
                    changed.add(identity)
            self._declared, self._begun = declared, True
            lost = {identity for identity in changed if self._settle(identity)}
            self._stamps.update(dict.fromkeys(changed, time.time_ns()))
        if lost:
            self._cut(lost)

    def set_floor(self, floor: Iterable[str]) -> None:
        """Networks that no answer opens, the platform's own and the node's addresses among them."""
        self._floor = [ipaddress.ip_network(text, strict=False) for text in floor]

    @property
    def declared(self) -> bool:
        """Whether anybody declares a name of the outside world."""
        return bool(self._declared)

    def stamps(self) -> dict[str, int]:
        """For the resolver, of who declares names now: what it knew under another number doesn't count."""
        return {str(identity): self._stamps.get(identity, self._born) for identity in self._declared}

    def _take_over(self, declared: dict[int, list[NameEntry]]) -> None:
        """What the kernel has from an agent before, with the file's words for it, which may be older."""
        self._answers = _load(self._file, self._now() + TTL_CEILING)
        for (identity, address, port, protocol), rule in self._tables.learned().items():
            self._open.setdefault(identity, {})[Way(address, port, protocol)] = rule
        for identity, ways in self._open.items():
            known = {
                Way(address, port, protocol)
                for name, address in self._answers.get(identity, {})
                for port, protocol in grants(declared.get(identity, ()), name)
            }
            end = self._now() + TTL_CEILING  # whoever has the answer may have it for so long
            unknown = {way: (rule, end) for way, rule in ways.items() if way not in known}
            if unknown:
                self._found[identity] = unknown

    # Learning.
    def teach(self, identity: int, name: str, addresses: Iterable[str], ttl: int) -> Lesson:
        """Open what a name's answer leads to; afterwards the asker may have it."""
        with self._lock:
            declared = self._declared.get(identity, [])
            if not any(matches(entry[0], name) for entry in declared):
                return Lesson((), 0, "no declared connection reaches this name")
            granted = grants(declared, name)
            good, floored = self._sift(addresses)
            if floored:
                self._refuse(identity, name, FLOOR, granted)
            ttl = max(TTL_FLOOR, min(ttl, TTL_CEILING))
            if not granted:  # in audit: it passes without being opened
                return Lesson(tuple(good), ttl)
            try:
                lesson = self._open_all(identity, name, good, ttl, granted)
                self.problem = ""
                return lesson
            except OSError as error:
                self.problem = f"the kernel's table of addresses behind names can't take more: {error}"
                return Lesson((), 0, "the node's table of addresses behind names is full")

    def _open_all(
        self, identity: int, name: str, addresses: list[str], ttl: int, granted: dict[tuple[int, int], int]
    ) -> Lesson:
        is_open = self._open.setdefault(identity, {})
        answers = self._answers.setdefault(identity, {})
        taught = []
        for address in addresses:
            wanted = {Way(address, port, protocol): rule for (port, protocol), rule in granted.items()}
            if len(is_open) + len(wanted.keys() - is_open.keys()) > MOST:
                continue
            end = self._now() + ttl
            if (name, address) not in answers and len(answers) >= MOST_ANSWERS:
                other = self._like(identity, address, granted)
                if other is None:
                    continue
                end = max(end, answers.pop(other))
            for way, rule in wanted.items():
                # Where two names lead to one address, the older declaration's rule stays.
                if way not in is_open or rule < is_open[way]:
                    self._tables.learn(identity, *way, rule)
                    is_open[way] = rule
            answers[name, address] = max(end, answers.get((name, address), 0))
            taught.append(address)
        self._changed = True
        if len(taught) < len(addresses):
            self._refuse(identity, name, QUOTA, granted)
            if not taught:
                return Lesson((), 0, f"names of this component have {MOST} addresses open already")
        return Lesson(tuple(taught), ttl)

    def _like(
        self, identity: int, address: str, granted: dict[tuple[int, int], int]
    ) -> tuple[str, str] | None:
        """An answer that opens the same: one more name of the address can take its place."""
        declared = self._declared.get(identity, [])
        same = (key for key in self._answers[identity] if key[1] == address)
        return next((key for key in same if grants(declared, key[0]) == granted), None)

    def _sift(self, addresses: Iterable[str]) -> tuple[list[str], bool]:
        """Addresses outside the floor, in canonical form; whether there were others."""
        good, floored = [], False
        for text in list(addresses)[:MOST_ADDRESSES]:
            address = ipaddress.ip_address(text)
            # An IPv4 address in IPv6's clothes is nobody's address on a wire.
            mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
            if mapped or any(address.version == n.version and address in n for n in self._floor):
                floored = True
            else:
                good.append(str(address))
        return good, floored

    # Closing.
    def tidy(self, busy: Callable[[int], set[str]]) -> None:
        """Close what has ended and has no connection. ``busy``: addresses that an identity has some to."""
        limit = self._now() - GRACE
        with self._lock:
            ended = {}
            for identity in {*self._answers, *self._found}:
                ends = [*self._answers.get(identity, {}).values()]
                ends += [end for _, end in self._found.get(identity, {}).values()]
                if ends and min(ends) < limit:
                    ended[identity] = min(ends)
        begun = time.monotonic()
        # Whoever has waited longest comes first.
        for identity in sorted(ended, key=ended.__getitem__)[:AT_ONCE]:
            if time.monotonic() - begun > LONG_ENOUGH:
                break
            used = busy(identity)
            with self._lock:
                self._let_go(identity, limit, used)
                self._settle(identity)
        if self._changed:
            self._save()

    def _let_go(self, identity: int, limit: float, used: set[str]) -> None:
        again = limit + AGAIN
        answers, found = self._answers.get(identity, {}), self._found.get(identity, {})
        for key, end in list(answers.items()):
            if end < limit:
                if key[1] in used:
                    answers[key] = again
                else:
                    del answers[key]
                    self._changed = True
        for way, (rule, end) in list(found.items()):
            if end < limit:
                if way.address in used:
                    found[way] = (rule, again)
                else:
                    del found[way]

    def _settle(self, identity: int) -> bool:
        """Bring the kernel to what answers and declarations say; whether something was closed."""
        declared = self._declared.get(identity, [])
        answers = self._answers.get(identity, {})
        for name, address in [key for key in answers if not grants(declared, key[0])]:
            del answers[name, address]
            self._changed = True
        wanted: dict[Way, int] = {}
        for name, address in answers:
            for (port, protocol), rule in grants(declared, name).items():
                way = Way(address, port, protocol)
                wanted[way] = min(rule, wanted.get(way, rule))
        rules = {entry[1:] for entry in declared}
        found = self._found.get(identity, {})
        for way, (rule, _) in list(found.items()):
            if (way.port, way.protocol, rule) in rules:
                wanted.setdefault(way, rule)
            else:
                del found[way]
        is_open = self._open.setdefault(identity, {})
        closed = [way for way in is_open if way not in wanted]
        for way in closed:
            self._tables.forget_learned(identity, *way)
            del is_open[way]
        for way, rule in wanted.items():
            if is_open.get(way) != rule and len(is_open) < MOST:
                self._tables.learn(identity, *way, rule)
                is_open[way] = rule
        for table in (self._open, self._answers, self._found):
            if not table.get(identity):
                table.pop(identity, None)  # type: ignore[attr-defined]
        return bool(closed)

    def _save(self) -> None:
        with self._lock:
            rows = [
                [identity, name, address, end]
                for identity, answers in self._answers.items()
                for (name, address), end in answers.items()
            ]
            self._changed = False
        write_private(self._file, json.dumps(rows).encode())

    # What was refused.
    def _refuse(self, identity: int, name: str, reason: str, granted: dict[tuple[int, int], int]) -> None:
        self.refused += 1
        port, protocol = min(granted, default=(0, 6))
        key = (identity, name, reason, port, protocol)
        if key in self._refusals or len(self._refusals) < _MOST_REFUSALS:
            self._refusals[key] += 1

    def take(self) -> Iterator[dict[str, Any]]:
        """Flows to report, in the form of the kernel's: what names didn't open."""
        with self._lock:
            refusals, self._refusals = self._refusals, Counter()
        for (identity, name, reason, port, protocol), count in refusals.items():
            yield {
                "source": identity,
                "destination": IDENTITY_WORLD,
                "remote": name,
                "port": port,
                "protocol": protocol,
                "direction": 0,
                "allowed": False,
                "reason": reason,
                "rule": 0,
                "packets": count,
                "bytes": 0,
            }


def _load(file: Path, latest: float) -> dict[int, dict[tuple[str, str], float]]:
    """Answers that were noted, none of them for longer than until ``latest``.

    None at all if the file can't be read: then the kernel's word is all there is.
    """
    found: dict[int, dict[tuple[str, str], float]] = {}
    try:
        for identity, name, address, end in json.loads(file.read_text()):
            key = str(name), str(ipaddress.ip_address(address))
            found.setdefault(int(identity), {})[key] = min(latest, float(end))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("what was learned can't be read, what is in force stays: %s", error)
        return {}
    return found
