"""Reads topics with librdkafka, and writes a line for each record, and one for
each position, as JavaReader.java does. Arguments: brokers, isolation level,
topics. It ends with its input."""

import base64
import os
import sys
import threading

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition


def text(b):
    """Base64, "-" for null, "=" for nothing: never empty, never with a space."""
    if b is None:
        return "-"
    return base64.b64encode(b).decode() or "="


def until_input_ends():
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


threading.Thread(target=until_input_ends, daemon=True).start()
consumer = Consumer(
    {
        "bootstrap.servers": sys.argv[1],
        "group.id": "reader",  # needed, and not used: offsets are not committed
        "isolation.level": sys.argv[2],
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
)
assigned = []
for topic in sys.argv[3:]:
    for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
        assigned.append(TopicPartition(topic, partition, OFFSET_BEGINNING))
consumer.assign(assigned)
while True:
    m = consumer.poll(1)
    if m is None:
        continue
    if m.error() is None:
        parts = ["R", m.topic(), m.partition(), m.offset(), m.timestamp()[1], text(m.key()), text(m.value())]
        for name, value in m.headers() or []:
            parts += [text(name.encode()), text(value)]
        print(*parts)
    elif m.error().code() == KafkaError._PARTITION_EOF:
        print("P", m.topic(), m.partition(), m.offset(), flush=True)
    else:
        sys.exit(str(m.error()))
