from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0005_project_audit")]

    operations = [migrations.AddField("environment", "waits", models.BooleanField(default=False))]
