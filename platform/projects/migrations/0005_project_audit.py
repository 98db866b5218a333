from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0004_hosts_of_cells")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="audit",
            field=models.BooleanField(default=False),
        ),
    ]
