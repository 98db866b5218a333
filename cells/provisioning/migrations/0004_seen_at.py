"""When what runs there was seen last."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0003_followed")]

    operations = [migrations.AddField("place", "seen_at", models.DateTimeField(null=True))]
