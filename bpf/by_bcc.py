"""Loads by bcc: compiles on the node, needs kernel headers. Over 100 MB stay resident."""

from __future__ import annotations

import bcc

from bpf import programs
from bpf.errors import LoadError, refused
from bpf.opening import Opened, captured


def open_text(text: str, object_name: str) -> Opened:
    """Compile a text of ``source.for_bcc`` and load its programs. Raises ``LoadError``."""
    output: list[str] = []
    try:
        with captured() as output:
            module = bcc.BPF(text=text, cflags=["-Wno-unused-function"])
    except Exception as error:  # bcc raises bare Exception
        raise LoadError(
            f"the kernel programs don't compile: {''.join(output).strip()[-1500:] or error}"
        ) from error
    descriptors = {}
    for name, program in programs.of(object_name).items():
        kind = programs.KINDS[program.kind]
        # The kernel checks the attach type of socket address hooks at loading.
        more = {"attach_type": program.hook} if program.kind == "CGROUP_SOCK_ADDR" else {}
        try:
            with captured() as output:
                descriptors[name] = module.load_func(name, kind, **more).fd
        except Exception as error:
            raise refused(name, "".join(output), str(error)) from error
    return Opened("bcc", descriptors, module)
