// What all Node clients here share: where the server is, and how they tell of a case.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

export const PORT = Number(process.env.RESP_PORT);
// Longer than any of these scripts.
export const LONG = 300_000;
export const SHORT = 300;
export const UNLOCK = `if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('del', KEYS[1]) else return 0 end`;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const ok = (name) => console.log(`ok ${name}`);

// Lets the server be killed with SIGKILL and started again on the same data and port.
export const restart = async () => {
  console.log('restart');
  assert.equal((await answers.next()).value, 'restarted');
};

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export const until = async (what, so) => {
  for (let looks = 0; !(await so()); looks += 1) {
    assert.ok(looks < 3000, what);
    await pause(10);
  }
};
