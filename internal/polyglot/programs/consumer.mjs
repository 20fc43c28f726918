// Takes records in Node, each event's effect once: consumer.mjs URL BROKERS TOPIC GROUP COUNT.
import { createRequire } from 'node:module';

const [url, brokers, topicName, groupId, count] = process.argv.slice(2);
const require = createRequire(process.env.NODE_PATH + '/'); // where the test has installed the drivers
const { Client } = require('pg');
const { Kafka, logLevel } = require('kafkajs');

const client = new Client({ connectionString: url });
await client.connect();
const handle = (client, message) => client.query('INSERT INTO effects (value) VALUES ($1)', [message.value.toString()]);

const consumer = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.ERROR }).consumer({ groupId });
await consumer.connect();
await consumer.subscribe({ topics: [topicName], fromBeginning: true });
let taken = 0;
await new Promise((done, failed) => consumer.run({
  autoCommit: false,
  eachMessage: async ({ topic, partition, message }) => {
    try {
      await client.query('BEGIN')
      const { rows } = await client.query("SELECT outbox.inbox_once('billing', $1, $2) AS first",
        [message.headers.id.toString(), 'outrider-dead-topic' in message.headers])
      if (rows[0].first) await handle(client, message)
      await client.query('COMMIT')
      await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }])
    } catch (error) {
      failed(error); // ends the process: what was undone must not be passed over
      throw error;
    }
    taken += 1;
    if (taken === Number(count)) done();
  },
}).catch(failed));
await consumer.disconnect();
await client.end();
