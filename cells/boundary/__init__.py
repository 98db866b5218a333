"""The boundary compiler: a pure function from declarations to what the kernel enforces.

Standard library only, no I/O. ``compile`` makes policy entries, services, names and gateway
configuration; ``explain`` says why a call is allowed or denied and what would open it.
"""

from cells.boundary.compiler import compile_topology
from cells.boundary.explain import explain
from cells.boundary.model import Boundary, Explanation, Topology

__all__ = ["Boundary", "Explanation", "Topology", "compile_topology", "explain"]
