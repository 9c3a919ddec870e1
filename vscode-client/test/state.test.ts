import assert from "node:assert/strict";
import { test } from "node:test";
import { describe as describeState, type Activity } from "../src/state";

const IDLE: Activity = { model: "dg-mini", device: "cpu", running: 0 };
const status = (state: string, message = "", progress = 0): Parameters<typeof describeState>[0] => ({ state, message, progress });

test("an engine that loads shows how far it is", () => {
  const shown = describeState(status("loading", "reading weights", 0.456), IDLE);
  assert.equal(shown.text, "$(loading~spin) dg-lsp 46 %");
  assert.equal(shown.tooltip, "dg-lsp: loading: reading weights");
});

test("a ready one names model, device and the last answer's time", () => {
  assert.equal(describeState(status("ready"), IDLE).tooltip, "dg-lsp: ready · dg-mini · cpu");
  const shown = describeState(status("ready"), { ...IDLE, lastMs: 123.6 });
  assert.equal(shown.tooltip, "dg-lsp: ready · dg-mini · cpu · last answer 124 ms");
});

test("it thinks while a request runs, but not where nothing is shown", () => {
  const busy = { ...IDLE, running: 1 };
  assert.match(describeState(status("ready"), busy).text, /sync~spin/);
  assert.match(describeState(status("snoozed", "5 min"), busy).text, /debug-pause/);
});

test("each reason for silence has its icon, and only failure a colour", () => {
  const states = ["disabled", "snoozed", "excluded", "stopped", "failed"];
  const shown = states.map((state) => describeState(status(state, "why"), IDLE));
  assert.equal(new Set(shown.map(({ text }) => text)).size, states.length);
  assert.deepEqual(shown.map(({ severity }) => severity), ["none", "none", "none", "none", "error"]);
  assert.ok(shown.every(({ tooltip }) => tooltip.endsWith(": why")));
});
