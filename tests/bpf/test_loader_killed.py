"""A loader that is killed in the middle: what was in force is, and loading again works."""

from __future__ import annotations

import signal

import pytest

from bpf import attach, loader
from tests.bpf.conftest import REPOSITORY, load, run_loader
from tests.bpf.laboratory import TCP, Laboratory
from tests.bpf.test_loader import attached

pytestmark = pytest.mark.root
#: What is killed here is the same for both.
LOADERS = ("prebuilt",)

#: The real loader, which kills itself when it comes to one of its own calls for the n-th time.
KILLED = """
import os, signal, sys
from bpf import loader, sys as bpf
module, name, left = {"bpf": bpf, "loader": loader}[sys.argv[1]], sys.argv[2], [int(sys.argv[3])]
original = getattr(module, name)
def deadly(*arguments, **more):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **more)
setattr(module, name, deadly)
sys.argv[1:] = ["load"]
loader.main()
"""


@pytest.mark.parametrize(
    "moment",
    [
        ("loader", "_check_structures", 1),  # every program has been taken, none is pinned
        ("bpf", "object_pin", 4),
        ("bpf", "attach_cgroup", 1),
        ("bpf", "attach_cgroup", 5),  # some hooks have the new programs, some the earlier ones
        ("loader", "_switch", 1),
        ("loader", "_clear", 1),
    ],
    ids=lambda moment: f"{moment[1]}-{moment[2]}",
)
def test_a_killed_load_leaves_no_gap_and_the_next_one_mends_it(
    laboratory: Laboratory, moment: tuple[str, str, int]
) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    b.listen(TCP, 8081)
    laboratory.allow(("a", "b", 8080, TCP))
    laboratory.serve(("b", 8080, TCP), ("b", 8081, TCP))
    config, connection = laboratory.config, a.connected(b.service4, 8080)

    def enforced() -> None:
        assert all(len(attached(config, hook)) == 1 for hook in loader.HOOKS)
        assert loader.status(config)["loaded"]
        for member in (a, b):  # as the agent, which finds its programs by their pins
            attach.attach(config, member.namespace.ifindex)
        assert (a.call(b.service6, 8080), a.call(b.service4, 8081), a.call(b.v6, 8081)) == ("b", "", "")
        connection.settimeout(1)
        connection.sendall(b"on")
        assert connection.recv(8) == b"on"

    module, name, number = moment
    done = run_loader(config, REPOSITORY, ("-c", KILLED, module, name, str(number)))
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    enforced()
    load(config)
    enforced()
    connection.close()
    assert sorted(folder.name for folder in loader.pins(config).iterdir()) == ["maps", "programs"]


def test_a_hook_that_cannot_be_replaced_brings_the_others_back(laboratory: Laboratory) -> None:
    config = laboratory.config
    before = {hook: attached(config, hook) for hook in loader.HOOKS}
    refusing = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", 'raise OSError(1, "not permitted")')
    done = run_loader(config, REPOSITORY, ("-c", refusing, "bpf", "attach_cgroup", "5"))
    assert "can't be attached to the root of the cgroups: not permitted" in done.stdout
    assert {hook: attached(config, hook) for hook in loader.HOOKS} == before
    load(config)
    assert all(len(attached(config, hook)) == 1 for hook in loader.HOOKS)
