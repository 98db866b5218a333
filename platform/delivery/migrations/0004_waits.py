from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0003_promotion")]

    operations = [migrations.AddField("deployment", "waits", models.BooleanField(null=True))]
