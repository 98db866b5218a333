"""Programs that the kernel refuses, by both loaders' own way: what is said, and what stays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from bpf import loader
from bpf import sys as bpf
from bpf.errors import complaint
from infra.config import Config
from tests.bpf.conftest import run_loader
from tests.bpf.laboratory import TCP, Laboratory
from tests.bpf.test_loader import attached, map_ids
from tests.bpf.versions import Change, version


class Unsafe(NamedTuple):
    change: Change
    program: str
    complaint: str


UNSAFE = {
    "reads beyond the packet": Unsafe(
        Change(
            "workload.bpf.c",
            "int to_workload(struct __sk_buff *skb)\n{\n",
            "\tchar *start = (char *)(long)skb->data;\n\tif (start[64] == 1)\n\t\treturn TC_ACT_SHOT;\n",
        ),
        "to_workload",
        "packet",
    ),
    "never ends": Unsafe(
        Change(
            "workload.bpf.c",
            "int from_workload(struct __sk_buff *skb)\n{\n",
            "\tvolatile __u32 n = 1;\n\twhile (n)\n\t\t;\n",
        ),
        "from_workload",
        "loop",
    ),
    "reads beyond its context, in one of the last": Unsafe(
        Change(
            "sockets.bpf.c",
            "int sockops(struct bpf_sock_ops *ctx)\n{\n",
            "\tif (*(volatile __u32 *)((char *)ctx + 4096) == 1)\n\t\treturn 0;\n",
        ),
        "sockops",
        "context access",
    ),
}


def in_force(config: Config) -> dict[str, object]:
    """Programs at the hooks, pinned programs, maps: by their ids."""
    pinned = {}
    for pin in sorted((loader.pins(config) / "programs").iterdir()):
        if not pin.is_symlink():
            pinned[pin.name] = next(bpf.info(d)["id"] for d in loader._pinned(pin.parent, pin.name))
    hooks = {hook: attached(config, hook) for hook in loader.HOOKS}
    folders = sorted(f.name for f in loader.pins(config).iterdir())
    return {"pinned": pinned, "hooks": hooks, "maps": map_ids(config), "folders": folders}


@pytest.mark.root
@pytest.mark.parametrize("case", UNSAFE)
def test_an_unsafe_program_is_refused_readably_and_changes_nothing(
    laboratory: Laboratory, tmp_path: Path, case: str
) -> None:
    unsafe = UNSAFE[case]
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    b.listen(TCP, 8081)
    laboratory.allow(("a", "b", 8080, TCP))
    config = dataclasses.replace(laboratory.config, cache=tmp_path / "cache")
    before, connection = in_force(config), a.connected(b.v6, 8080)
    done = run_loader(config, version(tmp_path / "version", unsafe.change))
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer["loaded"] is False
    error = answer["error"]
    assert error.startswith(f"the kernel refuses the program {unsafe.program}: ")
    assert unsafe.complaint in error and "stays in force" in error and "Go back" in error
    assert "\n" not in error and len(error) < 500
    assert in_force(config) == before
    connection.settimeout(1)
    connection.sendall(b"on")
    assert connection.recv(8) == b"on"
    connection.close()
    assert (a.call(b.v4, 8080), a.call(b.v4, 8081)) == ("b", "")


@pytest.mark.root
def test_a_program_that_does_not_compile_is_refused_with_the_compilers_words(
    kernel: Config, tmp_path: Path
) -> None:
    config = dataclasses.replace(kernel, cache=tmp_path / "cache")
    before = in_force(config)
    wrong = Change("sockets.bpf.c", "int sockops(struct bpf_sock_ops *ctx)\n{\n", "\tno such thing;\n")
    done = run_loader(config, version(tmp_path / "version", wrong))
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error.startswith("the kernel programs don't compile") and "no such thing" in error
    assert in_force(config) == before


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (
            "invalid access to packet, off=64 size=1, R2(id=0,off=64,r=0)\nR2 offset is outside of the packet",
            "invalid access to packet, off=64 size=1, R2(id=0,off=64,r=0); R2 offset is outside of the packet",
        ),
        (
            "10: (55) if r2 != 0x3 goto pc-6 infinite loop detected at insn 5\ncur state: R1=ctx()",
            "infinite loop detected at insn 5",
        ),
        (
            "12: (a6) if w2 < 0x3 goto pc-6 BPF program is too large. Processed 1000001 insn",
            "BPF program is too large. Processed 1000001 insn",
        ),
        ("R1 invalid mem access 'scalar'", "R1 invalid mem access 'scalar'"),
    ],
)
def test_the_verifiers_complaint_is_told_from_its_trace(last: str, said: str) -> None:
    log = f"""bpf: Failed to load program: Permission denied
0: R1=ctx(off=0,imm=0) R10=fp0
; char *start = (char *)(long)skb->data;
0: (61) r2 = *(u32 *)(r1 +76)         ; R1=ctx(off=0,imm=0) R2_w=pkt(off=0,r=0,imm=0)
8: (15) if r0 == 0x0 goto pc+1          ; R0=map_value(map=config,ks=4,vs=40)
{last}
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
    assert complaint(log) == said
