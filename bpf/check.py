"""Compiles the kernel programs with clang's warnings as errors: ``python -m bpf.check``.

bcc hides most warnings. What is checked is the text that prebuilt objects are made of, in which keys
and values of maps have the types that they are declared with.
"""

from __future__ import annotations

import subprocess
import sys

from bpf import prebuild, source
from bpf.programs import OBJECTS


def main() -> int:
    command = [*prebuild.COMPILER, "-fsyntax-only"]
    failed = 0
    for name in OBJECTS:
        failed |= subprocess.run(command, input=source.for_libbpf(name), text=True, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
