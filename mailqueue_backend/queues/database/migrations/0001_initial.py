from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="QueuedMessage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("queue", models.CharField(max_length=200)),
                ("due", models.DateTimeField()),
                ("receipt", models.CharField(editable=False, max_length=32, null=True)),
                ("deliveries", models.PositiveIntegerField(default=0)),
                ("payload", models.BinaryField()),
            ],
            options={
                "ordering": ["due", "id"],
                "indexes": [models.Index(fields=["queue", "due", "id"], name="mailqueue_database_order")],
            },
        ),
    ]
