"""Kubernetes: a cell is a namespace, made by Helm from ``infra/charts/cell``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataplane.drivers.kubernetes.kubeconfig import InvalidKubeconfig, Kubeconfig
from dataplane.drivers.kubernetes.site import Site

if TYPE_CHECKING:
    from dataplane.drivers.kubernetes.driver import Kubernetes

__all__ = ["InvalidKubeconfig", "Kubeconfig", "Kubernetes", "Site"]


def __getattr__(name: str) -> Any:
    # Agents use what is beside it, and have no Helm.
    if name == "Kubernetes":
        from dataplane.drivers.kubernetes.driver import Kubernetes

        return Kubernetes
    raise AttributeError(name)
