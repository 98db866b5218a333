from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0005_runs")]

    operations = [migrations.AddField("schedule", "set_at", models.DateTimeField(null=True))]
