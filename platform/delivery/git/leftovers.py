"""What pushes and projects leave on disk when nobody needs it any more.

Sources are kept for a day after their deployment's end, for another try. Files that no row knows (their
project was destroyed, their push was cut short, the task that removes them was lost) are found by looking.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from delivery.git import repository
from delivery.models import Build, Deployment
from tenants.models import AuditEvent

KEPT = timedelta(days=1)
#: Sources that are forgotten at once.
MOST = 50


def forget_sources() -> int:
    """Delete sources of deployments that ended long ago, however they ended; how many."""
    old = timezone.now() - KEPT
    kept = Build.objects.exclude(archive="")
    # Another try has the same source.
    needed = kept.exclude(deployment__ended_at__lt=old).values("archive")
    done = kept.filter(deployment__state__in=Deployment.ENDED, deployment__ended_at__lt=old)
    rows = done.exclude(archive__in=needed).select_related("deployment__cell__project")[:MOST]
    for build in rows:
        repository.forget(build.deployment.cell.project, build.archive)
        build.archive = ""
        build.save(update_fields=["archive"])
    return len(rows)


def remove_strangers() -> int:
    """Delete archives that no row knows any more and repositories of destroyed projects; how many."""
    archives = {path.name: path for path in _old_archives()}
    known = Build.objects.filter(archive__in=archives).values_list("archive", flat=True)
    strangers = [archives[name] for name in archives.keys() - set(known)]
    for path in strangers:
        path.unlink(missing_ok=True)
    left = list(_of_destroyed())
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(strangers) + len(left)


def _old_archives() -> Iterator[Path]:
    """Archives that are nobody's who is just making one."""
    until = (timezone.now() - KEPT).timestamp()
    for path in settings.CONFIG.archives_dir.glob("*.tar"):
        with contextlib.suppress(OSError):  # somebody else was quicker
            if path.lstat().st_mtime < until:
                yield path


def _of_destroyed() -> Iterator[Path]:
    """Repositories whose project is known to be gone; that no row knows one isn't enough to delete code."""
    found = {(path.parent.name, path.stem): path for path in settings.CONFIG.git_dir.glob("*/*.git")}
    gone = AuditEvent.objects.filter(
        verb="project.destroy", object_type="project", object_id__in={project for _, project in found}
    ).exclude(tenant=None)
    for tenant, project in gone.values_list("tenant_id", "object_id"):
        if (str(tenant), project) in found:
            yield found[str(tenant), project]
