"""What was asked of a place is told apart from what drifted."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0002_running")]

    operations = [migrations.AddField("place", "followed", models.PositiveBigIntegerField(default=0))]
