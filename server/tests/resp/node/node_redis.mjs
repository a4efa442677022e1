// node-redis, with RESP2 and RESP3.

import assert from 'node:assert/strict';
import { createClient, defineScript, WatchError } from 'redis';
import { LONG, PORT, SHORT, UNLOCK, ok, restart, until } from './cases.mjs';

const unlock = defineScript({
  SCRIPT: UNLOCK,
  NUMBER_OF_KEYS: 1,
  parseCommand: (parser, key, value) => {
    parser.pushKey(key);
    parser.push(value);
  },
  transformReply: (reply) => reply,
});
const connect = async (RESP) => {
  const socket = { host: '127.0.0.1', port: PORT, reconnectStrategy: 20 };
  const client = createClient({ RESP, socket, scripts: { unlock } });
  client.on('error', () => {});
  return client.connect();
};
const acquire = (client, name, value, px) =>
  client.set(name, value, { condition: 'NX', expiration: { type: 'PX', value: px } });

for (const version of [2, 3]) {
  const [one, two] = [await connect(version), await connect(version)];
  await one.flushAll();
  assert.equal(await acquire(one, 'nr', 'mine', LONG), 'OK');
  assert.equal(await acquire(two, 'nr', 'theirs', LONG), null);
  assert.equal(await two.unlock('nr', 'theirs'), 0);
  assert.equal(await one.unlock('nr', 'mine'), 1);
  assert.equal(await acquire(one, 'nr', 'mine', SHORT), 'OK');
  await until('it ends', async () => (await acquire(two, 'nr', 'theirs', LONG)) === 'OK');
  assert.equal(await one.unlock('nr', 'mine'), 0);
  await one.watch('nr');
  await two.set('nr', 'else');
  await assert.rejects(one.multi().set('nr', 'never').exec(), WatchError);
  assert.deepEqual(await one.multi().get('nr').hSet('nr:h', { a: '1' }).hGetAll('nr:h').exec(), [
    'else',
    1,
    { a: '1' },
  ]);
  ok(`a lock, scripts and transactions, RESP${version}`);

  const many = await Promise.all(Array.from({ length: 10_000 }, () => one.incr('nr:count')));
  assert.equal(many.at(-1), 10_000);
  const listener = await connect(version);
  const heard = [];
  await listener.subscribe('nr:news', (body, channel) => heard.push([channel, body]));
  await listener.pSubscribe('nr:n?ws', (body, channel) => heard.push([channel, body]));
  assert.equal(await one.publish('nr:news', 'hello'), 2);
  await until('it is heard', () => heard.length === 2);
  if (version === 3) assert.equal(await listener.get('nr'), 'else');
  ok(`10,000 at one time, and listening, RESP${version}`);

  assert.equal(await acquire(one, 'nr:kept', 'mine', LONG), 'OK');
  await restart();
  await until('it is reached again', async () => (await two.ping()) === 'PONG');
  assert.equal(await acquire(two, 'nr:kept', 'theirs', LONG), null);
  assert.equal(await two.unlock('nr:kept', 'theirs'), 0);
  assert.ok((await one.pTTL('nr:kept')) > 0);
  assert.equal(await one.unlock('nr:kept', 'mine'), 1);
  ok(`a lock after kill -9, RESP${version}`);
  for (const client of [one, two, listener]) client.destroy();
}
process.exit(0);
