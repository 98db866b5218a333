"""What can go wrong while loading, in words that a person can act on."""

from __future__ import annotations

import re

#: Lines of a verifier's log that trace its way instead of saying what is wrong.
_TRACE = re.compile(
    r"^\s*\d+:|^from \d+ to|^;|^R\d+(_\w+)?=|^processed \d|^verification time|^stack depth|^(last|first)_idx|"
    r"^regs=|^parent |^max_states|^mark_precise|^libbpf:|^bpf: Failed|^-- |^func#\d|^Validating|^arg#\d|"
    r"^caller|^callee|^returning|^frame\d|^to caller|^cur state|^old state|^The sequence of|^HINT:"
)

#: Some complaints stand behind the jump that led to them.
_BEHIND_A_JUMP = re.compile(r"^\s*\d+: \(..\) .*\bgoto pc[+-]\d+ (?=[A-Za-z])")


class LoadError(RuntimeError):
    """Loading failed; the message says what and what to do about it. Nothing was changed."""


def complaint(log: str) -> str:
    """What the verifier finds wrong, in one line, without its trace of instructions."""
    lines = [_BEHIND_A_JUMP.sub("", line).strip() for line in log.splitlines()]
    said = [line for line in lines if line and not _TRACE.match(line)]
    return "; ".join(said[-2:])[:300]


def refused(program: str, log: str, error: str) -> LoadError:
    """The kernel doesn't take a program. ``log``: everything that the loading library wrote."""
    why = complaint(log) or error
    return LoadError(
        f"the kernel refuses the program {program}: {why}. What was loaded before stays in force. "
        "Go back to the version it came from, or update the kernel (docs/kernel.md, Loading)"
    )
