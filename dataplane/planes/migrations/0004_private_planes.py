from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    dependencies = [("planes", "0003_units")]

    operations = [
        migrations.AddField("plane", "net", models.PositiveSmallIntegerField(null=True)),
        migrations.AlterField(
            "node",
            "kind",
            models.CharField(
                max_length=16,
                choices=[("agent", "Agent"), ("builder", "Builder"), ("controller", "Controller")],
            ),
        ),
        migrations.AlterField(
            "enrolmenttoken",
            "kind",
            models.CharField(
                max_length=16,
                choices=[("agent", "Agent"), ("builder", "Builder"), ("controller", "Controller")],
            ),
        ),
        migrations.AddField("enrolmenttoken", "node_name", models.CharField(max_length=80, blank=True, default=""), False),
        migrations.AddField("enrolmenttoken", "created_by", models.CharField(max_length=254, blank=True, default=""), False),
        migrations.AddField(
            "enrolmenttoken", "created_at", models.DateTimeField(auto_now_add=True, default=timezone.now), False
        ),
    ]
