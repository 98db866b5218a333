"""Who waits for a row sees what is there afterwards, not what was there when the waiting began."""

from __future__ import annotations

import threading

from django.db import connection, connections, transaction

from cells.provisioning import actions as provisioning
from dataplane.planes.models import Plane, ReplicaAddress, Touched
from delivery import actions as delivery
from delivery import replicas
from delivery.models import Deployment, Replica
from projects import actions as projects
from projects import quotas
from projects.models import Environment, Project
from tests.factories import World
from tests.waiting import meanwhile


def test_a_destroyed_project_takes_along_what_a_step_was_just_making(committed_world: World) -> None:
    world = committed_world
    project = world.project()
    release = world.deploy(world.cell(project))
    deployment = delivery.scale(
        acting_user=world.actor(), cell=world.cell(project), numbers={"web": 3, "api": 3}
    )
    Deployment.objects.filter(pk=deployment.pk).update(state=Deployment.State.STARTING)

    def step() -> None:
        Deployment.objects.select_for_update().get(pk=deployment.pk)
        assert replicas.ensure(world.cell(project), release)

    meanwhile(
        step, lambda: projects.destroy_project(acting_user=world.actor(), project=project, confirm="shop")
    )
    assert not Project.objects.exists() and not Replica.objects.exists()
    assert ReplicaAddress.objects.exists()
    assert not ReplicaAddress.objects.filter(freed_at=None).exists()


def test_a_project_made_while_its_environment_moves_is_where_the_environment_is(
    committed_world: World,
) -> None:
    world = committed_world
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)

    def bind(plane: str) -> Environment:
        return provisioning.bind_environment(
            acting_user=world.root, tenant="acme", environment="production", plane=plane
        )

    meanwhile(
        lambda: bind("other"),
        lambda: projects.create_project(acting_user=world.actor(), tenant=world.acme, slug="shop"),
    )
    number = world.cell(Project.objects.get()).number
    assert Touched.objects.filter(plane=other, number=number).exists()


def test_tenants_of_one_plan_dont_wait_for_each_other(committed_world: World) -> None:
    world = committed_world

    def impatient() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '1s'")
        quotas.check_projects(world.globex)

    found: list[Exception] = []

    def other() -> None:
        try:
            with transaction.atomic():
                impatient()
        except Exception as error:
            found.append(error)
        finally:
            connections.close_all()

    with transaction.atomic():
        quotas.check_projects(world.acme)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
    assert not found
