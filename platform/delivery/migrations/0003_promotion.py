"""Releases go from one environment to the next."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0002_initial")]

    operations = [
        migrations.AddField(
            "release",
            "promoted_from",
            models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="delivery.release",
            ),
        ),
        migrations.AlterField(
            "deployment",
            "kind",
            models.CharField(
                choices=[
                    ("push", "Push"),
                    ("rollback", "Rollback"),
                    ("config", "Config"),
                    ("scale", "Scale"),
                    ("promotion", "Promotion"),
                ],
                max_length=16,
            ),
        ),
    ]
