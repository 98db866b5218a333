"""How the controller signs in to its cluster."""

from __future__ import annotations

import os
from pathlib import Path

from dataplane.drivers.interface import Denied
from dataplane.drivers.kubernetes import InvalidKubeconfig, Kubeconfig
from infra.config import Config

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def credentials(config: Config) -> Kubeconfig:
    """A kubeconfig in the controller's folder, else the pod's service account. Raises ``Denied``.

    Read anew for each use: a service account's token is replaced within the hour.
    """
    file = config.controller_dir / "kubeconfig"
    try:
        if file.exists():
            return Kubeconfig.parse(file.read_text())
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        return Kubeconfig(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            authority=(_ACCOUNT / "ca.crt").read_text(),
            token=(_ACCOUNT / "token").read_text().strip(),
        )
    except (OSError, KeyError, InvalidKubeconfig) as error:
        raise Denied(f"The controller can't sign in to its cluster: {error}.") from None
