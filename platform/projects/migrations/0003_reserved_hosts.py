from django.db import migrations, models
from django.db.models import deletion


def give_cells(apps, schema_editor):
    """A name that leads somewhere is its endpoint's cell's."""
    for row in apps.get_model("projects", "Host").objects.select_related("endpoint__workload"):
        row.cell_id = row.endpoint.workload.cell_id
        row.save(update_fields=["cell"])


class Migration(migrations.Migration):
    dependencies = [("projects", "0002_door_port")]

    operations = [
        migrations.AddField(
            model_name="host",
            name="cell",
            field=models.ForeignKey(
                null=True, on_delete=deletion.CASCADE, related_name="hosts", to="projects.cell"
            ),
        ),
        migrations.RunPython(give_cells, migrations.RunPython.noop),
    ]
