// ioredis, and redlock over it.

import assert from 'node:assert/strict';
import { Redis } from 'ioredis';
import redlock from 'redlock';
import { LONG, PORT, SHORT, UNLOCK, ok, pause, restart, until } from './cases.mjs';

const Redlock = redlock.default ?? redlock;
const connect = () => {
  const client = new Redis({ port: PORT, host: '127.0.0.1', maxRetriesPerRequest: null });
  client.on('error', () => {});
  return client;
};
const one = connect();
const two = connect();

assert.equal(await one.set('io:cad', 'mine', 'PX', LONG, 'NX'), 'OK');
assert.equal(await two.set('io:cad', 'theirs', 'PX', LONG, 'NX'), null);
one.defineCommand('unlock', { numberOfKeys: 1, lua: UNLOCK });
await one.script('FLUSH');
assert.equal(await one.unlock('io:cad', 'theirs'), 0);
assert.equal(await one.unlock('io:cad', 'mine'), 1);
ok('a defined command after NOSCRIPT');

const pipeline = one.pipeline();
for (let i = 0; i < 10_000; i += 1) pipeline.set(`io:pipe:${i}`, i);
assert.ok((await pipeline.exec()).every(([error, reply]) => !error && reply === 'OK'));
const values = await one.mget(Array.from({ length: 10_000 }, (_, i) => `io:pipe:${i}`));
assert.ok(values.every((value, i) => value === String(i)));
ok('a pipeline of 10,000');

await one.watch('io:watched');
await two.set('io:watched', 1);
assert.equal(await one.multi().set('io:watched', 2).exec(), null);
assert.deepEqual(await one.multi().get('io:watched').incr('io:watched').exec(), [
  [null, '1'],
  [null, 2],
]);
ok('MULTI, EXEC, WATCH');

const listener = connect();
const heard = [];
listener.on('message', (channel, body) => heard.push([channel, body]));
listener.on('pmessage', (pattern, channel, body) => heard.push([pattern, channel, body]));
assert.equal(await listener.subscribe('io:news'), 1);
assert.equal(await listener.psubscribe('io:n*'), 2);
assert.equal(await one.publish('io:news', 'hello'), 2);
await until('it is heard', () => heard.length === 2);
assert.deepEqual(heard, [
  ['io:news', 'hello'],
  ['io:n*', 'io:news', 'hello'],
]);
ok('channels and patterns');

const quick = { retryCount: 0, automaticExtensionThreshold: 100 };
const mine = new Redlock([one], quick);
const other = new Redlock([two], quick);
const patient = new Redlock([two], { retryCount: 3000, retryDelay: 10, retryJitter: 5 });
const refused = async (doing) => {
  await assert.rejects(doing, /quorum|unable to achieve/i);
};

let lock = await mine.acquire(['io:a', 'io:b'], LONG);
await refused(other.acquire(['io:b'], LONG));
await refused(other.acquire(['io:c', 'io:a'], LONG));
assert.equal(await one.exists('io:c'), 0);
ok('redlock: contention, several names');

const before = await one.pttl('io:a');
lock = await lock.extend(2 * LONG);
assert.ok((await one.pttl('io:a')) > before);
const stranger = await patient.acquire(['io:d'], LONG);
stranger.resources = ['io:a', 'io:b'];
await refused(other.release(stranger));
await refused(other.acquire(['io:a'], LONG));
ok('redlock: extend; released by another stays held');

const waiter = patient.acquire(['io:a', 'io:b'], LONG);
await lock.release();
const won = await waiter;
await refused(mine.acquire(['io:b'], LONG));
await won.release();
const short = await mine.acquire(['io:a'], SHORT);
const next = await patient.acquire(['io:a'], LONG);
await refused(mine.release(short));
await next.release();
ok('redlock: release and expiry');

const kept = await mine.acquire(['io:kept'], LONG);
await restart();
await until('it is reached again', async () => (await two.ping()) === 'PONG');
await one.ping();
await refused(other.acquire(['io:kept'], LONG));
const longer = await kept.extend(2 * LONG);
await longer.release();
const after = await other.acquire(['io:kept'], LONG);
await after.release();
heard.length = 0;
await until('it listens again', async () => (await one.publish('io:news', 'again')) === 2);
await until('it is heard again', () => heard.length >= 2);
ok('redlock: after kill -9; subscriptions come back');

let inside = 0;
let turns = 0;
await Promise.all(
  Array.from({ length: 10 }, () =>
    patient.using(['io:using'], 5000, async () => {
      inside += 1;
      assert.equal(inside, 1);
      await pause(5);
      inside -= 1;
      turns += 1;
    }),
  ),
);
assert.equal(turns, 10);
ok('redlock: using');
process.exit(0);
