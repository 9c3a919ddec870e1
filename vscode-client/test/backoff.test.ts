import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Backoff } from "../src/backoff";

mock.timers.enable({ apis: ["Date"] });

test("waits double with each end, then it gives up", () => {
  const backoff = new Backoff();
  const waits = Array.from({ length: 7 }, () => backoff.next());
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, undefined]);
});

test("a server that has lived for a minute has all its tries again", () => {
  const backoff = new Backoff();
  assert.deepEqual([backoff.next(), backoff.next()], [500, 1000]);
  mock.timers.tick(1000 + 59_999);
  assert.equal(backoff.next(), 2000);
  mock.timers.tick(2000 + 60_000);
  assert.equal(backoff.next(), 500);
});
