import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../src/backoff";

test("waits double with each end, then it gives up", () => {
  const backoff = new Backoff(() => 0);
  const waits = Array.from({ length: 7 }, () => backoff.next());
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, undefined]);
});

test("a server that has lived for a minute has all its tries again", () => {
  let now = 0;
  const backoff = new Backoff(() => now);
  assert.deepEqual([backoff.next(), backoff.next()], [500, 1000]);
  now = 1000 + 59_999;
  assert.equal(backoff.next(), 2000);
  now += 2000 + 60_000;
  assert.equal(backoff.next(), 500);
});
