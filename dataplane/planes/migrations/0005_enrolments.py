from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("planes", "0004_private_planes")]

    operations = [
        migrations.AddField("node", "enrolment", models.PositiveIntegerField(default=1, db_default=1)),
    ]
