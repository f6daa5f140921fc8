from __future__ import annotations

from typing import Any

from django.db import migrations


def distinguish_case(apps: Any, schema_editor: Any) -> None:
    """On MySQL and MariaDB, compare names of queues by their bytes, as the other databases do."""
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        table = apps.get_model("mailqueue_database", "QueuedMessage")._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT character_set_name FROM information_schema.columns"
                " WHERE table_schema = DATABASE() AND table_name = %s AND column_name = 'queue'",
                [table],
            )
            (charset,) = cursor.fetchone()
        define_column(schema_editor, table, f"CHARACTER SET {charset} COLLATE {charset}_bin")


def ignore_case(apps: Any, schema_editor: Any) -> None:
    """Return to the collation of the table."""
    if schema_editor.connection.vendor == "mysql":
        define_column(schema_editor, apps.get_model("mailqueue_database", "QueuedMessage")._meta.db_table, "")


def define_column(schema_editor: Any, table: str, collation: str) -> None:
    quoted = schema_editor.quote_name(table)
    schema_editor.execute(f"ALTER TABLE {quoted} MODIFY queue varchar(200) {collation} NOT NULL", params=None)


class Migration(migrations.Migration):
    dependencies = [("mailqueue_database", "0001_initial")]

    # MySQL cannot alter a table in a transaction.
    operations = [migrations.RunPython(distinguish_case, ignore_case, atomic=False)]
