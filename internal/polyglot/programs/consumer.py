"""Takes records in Python, each event's effect once: consumer.py URL BROKERS TOPIC GROUP COUNT."""

import sys

import psycopg
from confluent_kafka import Consumer

URL, BROKERS, TOPIC, GROUP, COUNT = sys.argv[1:]


def handle(connection, message):
    connection.execute("INSERT INTO effects (value) VALUES (%s)", (message.value().decode(),))


consumer = Consumer({
    "bootstrap.servers": BROKERS,
    "group.id": GROUP,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
})
consumer.subscribe([TOPIC])
with psycopg.connect(URL) as connection:
    for _ in range(int(COUNT)):
        message = consumer.poll(60)
        if message is None or message.error():
            sys.exit(f"no record: {message and message.error()}")
        headers = dict(message.headers())
        with connection.transaction():
            first = connection.execute("SELECT outbox.inbox_once('billing', %s, %s)",
                                       (headers["id"].decode(), "outrider-dead-topic" in headers)).fetchone()[0]
            if first:
                handle(connection, message)
        consumer.commit(message, asynchronous=False)
consumer.close()
