from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    # Creates no table, but the permissions.
    operations = [
        migrations.CreateModel(
            name="Queue",
            fields=[("name", models.CharField(max_length=200, primary_key=True, serialize=False))],
            options={
                "permissions": [
                    ("view_queue", "Can see the queues, without addresses, subjects and texts"),
                    ("read_messages", "Can read queued messages, such as password resets"),
                    ("act_on_messages", "Can retry, discard and revive messages, and pause queues"),
                ],
                "managed": False,
                "default_permissions": (),
            },
        ),
    ]
