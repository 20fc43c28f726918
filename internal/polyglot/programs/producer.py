"""Writes the events of a file in Python: producer.py WAY URL TOPIC EVENTS."""

import base64
import json
import sys

WAY, URL, TOPIC, EVENTS = sys.argv[1:]


def events():
    """Yields key, type, payload (text of JSON), bytes, headers, settings of the transaction."""
    with open(EVENTS, encoding="utf-8") as file:
        for event in json.load(file):
            settings = {}
            if "traceparent" in event:
                settings["outbox.traceparent"] = event["traceparent"]
            if "context" in event:
                settings["outbox.headers"] = json.dumps(event["context"])
            raw = event.get("bytes")
            yield (
                event["key"],
                event.get("type"),
                event.get("payload"),
                None if raw is None else base64.b64decode(raw),
                event.get("headers"),
                settings,
            )


def psycopg_insert():
    import psycopg
    from psycopg.types.json import Jsonb

    with psycopg.connect(URL) as connection:
        for key, kind, payload, raw, headers, settings in events():
            with connection.transaction():
                for name, value in settings.items():
                    connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                connection.execute(
                    "INSERT INTO outbox.events (topic, key, type, payload, payload_bytes, headers)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (TOPIC, key, kind, payload, raw, None if headers is None else Jsonb(headers)),
                )


def psycopg_publish():
    import psycopg
    from psycopg.types.json import Jsonb

    with psycopg.connect(URL) as connection:
        for key, kind, payload, raw, headers, settings in events():
            with connection.transaction():
                for name, value in settings.items():
                    connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                connection.execute(
                    "SELECT outbox.publish(%s, %s, %s, %s, %s)",
                    (TOPIC, key, payload if raw is None else raw, kind, None if headers is None else Jsonb(headers)),
                )


def sqlalchemy_orm():
    from sqlalchemy import LargeBinary, Text, create_engine, text
    from sqlalchemy.dialects.postgresql import JSON, JSONB, UUID
    from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class OutboxEvent(Base):
        """Leaves tx, seq and created_at to the database."""

        __tablename__ = "events"
        __table_args__ = {"schema": "outbox"}
        id = mapped_column(UUID, primary_key=True, server_default=text("outbox.uuid_v7()"))
        topic = mapped_column(Text)
        key = mapped_column(Text)
        type = mapped_column(Text)
        payload = mapped_column(JSON(none_as_null=True))
        payload_bytes = mapped_column(LargeBinary)
        headers = mapped_column(JSONB(none_as_null=True))

    # A payload that is text already keeps its text.
    engine = create_engine(
        URL.replace("postgres://", "postgresql+psycopg://").replace("postgresql://", "postgresql+psycopg://"),
        json_serializer=lambda value: value if isinstance(value, str) else json.dumps(value),
    )
    with Session(engine) as session:
        for key, kind, payload, raw, headers, settings in events():
            for name, value in settings.items():
                session.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})
            session.add(OutboxEvent(topic=TOPIC, key=key, type=kind, payload=payload, payload_bytes=raw, headers=headers))
            session.commit()


def django_orm():
    from urllib.parse import unquote, urlsplit

    import django
    from django.conf import settings as django_settings

    at = urlsplit(URL)
    django_settings.configure(
        INSTALLED_APPS=[],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": at.path.lstrip("/"),
                "USER": unquote(at.username or ""),
                "PASSWORD": unquote(at.password or ""),
                "HOST": at.hostname,
                "PORT": at.port,
            }
        },
    )
    django.setup()
    from django.db import connection, models, transaction

    class RawJSONField(models.Field):
        """JSON whose text is kept: JSONField would parse it and write it anew."""

        def db_type(self, connection):
            return "json"

        def get_placeholder(self, value, compiler, connection):
            return "%s::json"

    class OutboxEvent(models.Model):
        """Leaves tx, seq and created_at to the database, and has it make the id."""

        id = models.UUIDField(primary_key=True, db_default=models.Func(function="outbox.uuid_v7"))
        topic = models.TextField()
        key = models.TextField(null=True)
        type = models.TextField(null=True)
        payload = RawJSONField(null=True)
        payload_bytes = models.BinaryField(null=True)
        headers = models.JSONField(null=True)

        class Meta:
            app_label = "shop"
            managed = False
            db_table = 'outbox"."events'

    for key, kind, payload, raw, headers, settings in events():
        with transaction.atomic():
            with connection.cursor() as cursor:
                for name, value in settings.items():
                    cursor.execute("SELECT set_config(%s, %s, true)", (name, value))
            OutboxEvent.objects.create(topic=TOPIC, key=key, type=kind, payload=payload, payload_bytes=raw, headers=headers)


{
    "insert": psycopg_insert,
    "publish": psycopg_publish,
    "sqlalchemy": sqlalchemy_orm,
    "django": django_orm,
}[WAY]()
