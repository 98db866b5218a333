"""Kubernetes: a cell is a namespace, made by Helm from ``infra/charts/cell``."""

from dataplane.drivers.kubernetes.driver import Kubernetes
from dataplane.drivers.kubernetes.kubeconfig import InvalidKubeconfig, Kubeconfig
from dataplane.drivers.kubernetes.site import Site

__all__ = ["InvalidKubeconfig", "Kubeconfig", "Kubernetes", "Site"]
