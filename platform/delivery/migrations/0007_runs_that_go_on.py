from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("delivery", "0006_schedule_set_at")]

    operations = [
        migrations.AddIndex(
            "run",
            models.Index(fields=["state"], name="run_goes_on", condition=Q(state__in=["starting", "running"])),
        ),
        migrations.AddIndex(
            "run",
            models.Index(
                fields=["ended_at"],
                name="run_of_a_schedule_failed",
                condition=Q(kind="cron", state__in=["failed", "timed-out"]),
            ),
        ),
    ]
