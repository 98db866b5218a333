import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [("projects", "0006_waits")]

    operations = [
        migrations.CreateModel(
            name="Autoscaled",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("history", models.JSONField(default=list)),
                ("figures", models.JSONField(default=dict)),
                ("looked_at", models.DateTimeField(null=True)),
                ("number", models.PositiveSmallIntegerField(default=0)),
                ("wanted", models.PositiveSmallIntegerField(default=0)),
                ("why", models.CharField(blank=True, max_length=300)),
                ("held", models.CharField(blank=True, max_length=300)),
                ("changed_at", models.DateTimeField(null=True)),
                ("change", models.CharField(blank=True, max_length=300)),
                (
                    "workload",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="autoscaled",
                        to="projects.workload",
                    ),
                ),
            ],
        ),
    ]
