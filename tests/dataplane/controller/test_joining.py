"""A cluster joins by the printed command alone: it fetches the chart, Helm installs it, the controller collects."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from cells.provisioning.models import Place
from dataplane.controller.identity import TOKEN
from dataplane.planes import private
from dataplane.planes.models import EnrolmentToken
from infra.config import Config
from projects import actions as projects
from tests.cluster import LONGEST, Cluster, cluster  # noqa: F401  a fixture
from tests.dataplane.controller.test_controller import NAMESPACE, Joined, bound
from tests.dataplane.listener import config, said  # noqa: F401  a fixture
from tests.factories import World

pytestmark = [pytest.mark.root, pytest.mark.cluster, pytest.mark.timeout(LONGEST)]


def test_the_command_brings_a_controller_that_joins(
    committed_world: World,
    cluster: Cluster,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "CONFIG", said(config))
    invitation = private.create(
        acting_user=committed_world.actor("owner"), name="own", engine="kubernetes", owner="acme"
    )
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.text)
    kubeconfig.chmod(0o600)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(kubeconfig),
    }
    joined = Joined(committed_world, cluster, config, tmp_path, plane=invitation.plane)
    try:
        line = invitation.command + " -s -- --set clusterNetworks={10.96.0.0/16}"
        done = subprocess.run(
            ["sh", "-c", line], env=environment, cwd="/", capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert invitation.token not in done.stdout + done.stderr
        assert TOKEN in cluster.objects("Secret", NAMESPACE)
        assert "controller" in cluster.objects("Deployment", NAMESPACE, "apps/v1")
        # Nodes of this API server run nothing: the controller's process stands for its pod.
        # It has the rights that the chart gives its account, and no others.
        account = f"system:serviceaccount:{NAMESPACE}:controller"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}")
        joined.kubeconfig = cluster.server.kubeconfig(account, groups)
        joined.start("one")
        joined.await_(joined.controller, "the controller didn't join")
        assert EnrolmentToken.objects.get(plane=invitation.plane).used_at
        assert TOKEN not in cluster.objects("Secret", NAMESPACE)
        place = bound(joined)
        joined.await_(
            lambda: Place.objects.filter(pk=place.pk, state=Place.State.READY, revision__gt=0).exists(),
            "the cell's place isn't made with the rights of the chart",
            60,
        )
        assert cluster.objects("ResourceQuota", place.location)
        projects.destroy_project(
            acting_user=committed_world.actor("owner"),
            project=committed_world.acme.projects.get(),
            confirm="shop",
        )
        joined.await_(lambda: not cluster.namespace(place.location), "the namespace stays", 60)
    finally:
        joined.stop()
        helm = shutil.which("helm", path=environment["PATH"])
        assert helm
        gone = [helm, "uninstall", "cytoplane", "--namespace", NAMESPACE, "--no-hooks"]
        subprocess.run(gone, env=environment, check=False, capture_output=True, timeout=120)
