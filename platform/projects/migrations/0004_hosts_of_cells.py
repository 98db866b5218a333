from django.db import migrations, models
from django.db.models import deletion


class Migration(migrations.Migration):
    dependencies = [("projects", "0003_reserved_hosts")]

    operations = [
        migrations.AlterField(
            model_name="host",
            name="cell",
            field=models.ForeignKey(on_delete=deletion.CASCADE, related_name="hosts", to="projects.cell"),
        ),
        migrations.AlterField(
            model_name="host",
            name="endpoint",
            field=models.ForeignKey(
                null=True, on_delete=deletion.CASCADE, related_name="hosts", to="projects.endpoint"
            ),
        ),
    ]
