from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0002_repository_quota'),
    ]

    operations = [
        migrations.AddField(
            model_name='plan',
            name='bandwidth_mbit',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='plan',
            name='connections_per_second',
            field=models.PositiveIntegerField(default=5000),
        ),
        migrations.AddField(
            model_name='plan',
            name='connections',
            field=models.PositiveIntegerField(default=20000),
        ),
    ]
