from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Recipient",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("address", models.CharField(max_length=254)),
                ("message_id", models.CharField(max_length=255, verbose_name="Message-ID")),
                ("mail_id", models.CharField(max_length=12, verbose_name="id")),
                ("queue", models.CharField(max_length=200)),
                ("subject", models.CharField(blank=True, max_length=255)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "queued"),
                            ("waiting", "waiting for the next attempt"),
                            ("accepted", "accepted by the server"),
                            ("given up", "given up"),
                            ("set aside", "set aside"),
                        ],
                        max_length=20,
                    ),
                ),
                ("reply", models.TextField(blank=True)),
                ("error", models.TextField(blank=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("queued", models.DateTimeField()),
                ("changed", models.DateTimeField()),
            ],
            options={
                "verbose_name": "recipient",
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("message_id", "address"), name="mailqueue_history_once")
                ],
                "indexes": [
                    models.Index(fields=["address"], name="mailqueue_history_address"),
                    models.Index(fields=["mail_id"], name="mailqueue_history_mail_id"),
                    models.Index(fields=["changed"], name="mailqueue_history_changed"),
                ],
            },
        ),
    ]
