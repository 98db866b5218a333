"""Places follow what runs in their cell, and what runs there is looked at."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0001_initial")]

    operations = [
        migrations.AddField("place", "asked", models.PositiveBigIntegerField(default=0)),
        migrations.AddField("place", "look_at", models.DateTimeField(default=django.utils.timezone.now)),
        migrations.AddIndex(
            "place", models.Index(fields=["look_at"], name="provisionin_look_at_ee94b1_idx")
        ),
    ]
