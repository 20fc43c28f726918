// Writes the events of a file in Node: producer.mjs WAY URL TOPIC EVENTS.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [way, url, topic, file] = process.argv.slice(2);
const require = createRequire(process.env.NODE_PATH + '/'); // where the test has installed the drivers
const events = JSON.parse(readFileSync(file, 'utf8')).map((event) => ({
  key: event.key,
  type: event.type ?? null,
  payload: event.payload ?? null, // text of JSON
  bytes: event.bytes === undefined ? null : Buffer.from(event.bytes, 'base64'),
  headers: event.headers === undefined ? null : JSON.stringify(event.headers),
  settings: {
    ...(event.traceparent && { 'outbox.traceparent': event.traceparent }),
    ...(event.context && { 'outbox.headers': JSON.stringify(event.context) }),
  },
}));

async function viaPg(write) {
  const { Client } = require('pg');
  const client = new Client({ connectionString: url });
  await client.connect();
  for (const event of events) {
    await client.query('BEGIN');
    for (const [name, value] of Object.entries(event.settings)) {
      await client.query('SELECT set_config($1, $2, true)', [name, value]);
    }
    await write(client, event);
    await client.query('COMMIT');
  }
  await client.end();
}

const ways = {
  insert: () => viaPg((client, e) => client.query(
    'INSERT INTO outbox.events (topic, key, type, payload, payload_bytes, headers) VALUES ($1, $2, $3, $4, $5, $6)',
    [topic, e.key, e.type, e.payload, e.bytes, e.headers])),

  // Parameters have no type here: bytes are told by a cast.
  publish: () => viaPg((client, e) => client.query(
    e.bytes ? 'SELECT outbox.publish($1, $2, $3::bytea, $4, $5)' : 'SELECT outbox.publish($1, $2, $3, $4, $5)',
    [topic, e.key, e.bytes ?? e.payload, e.type, e.headers])),

  knex: async () => {
    const knex = require('knex')({ client: 'pg', connection: url });
    for (const e of events) {
      await knex.transaction(async (tx) => {
        for (const [name, value] of Object.entries(e.settings)) {
          await tx.raw('SELECT set_config(?, ?, true)', [name, value]);
        }
        await tx.withSchema('outbox').insert({
          topic, key: e.key, type: e.type, payload: e.payload, payload_bytes: e.bytes, headers: e.headers,
        }).into('events').returning('id');
      });
    }
    await knex.destroy();
  },
};

await ways[way]();
