import assert from "node:assert/strict";
import { test } from "node:test";
import { describe as describeState, type Status } from "../src/state";

const status = (state: string, message = "", progress = 0): Status => ({ state, message, progress });

test("an engine that loads shows how far it is", () => {
  const shown = describeState(status("loading", "reading weights", 0.456), 0);
  assert.equal(shown.text, "$(loading~spin) dg-lsp 46 %");
  assert.equal(shown.tooltip, "dg-lsp: loading: reading weights");
});

test("a ready one names model, device and the last answer's time", () => {
  assert.equal(describeState(status("ready", "dg-mini · cpu"), 0).tooltip, "dg-lsp: ready: dg-mini · cpu");
  const shown = describeState(status("ready", "dg-mini · cpu"), 0, 123.6);
  assert.equal(shown.tooltip, "dg-lsp: ready: dg-mini · cpu · last answer 124 ms");
});

test("it thinks while a request runs, but not where nothing is shown", () => {
  assert.match(describeState(status("ready"), 1).text, /sync~spin/);
  assert.equal(describeState(status("ready"), 1).tooltip, "dg-lsp: thinking");
  assert.match(describeState(status("snoozed", "5 min"), 1).text, /debug-pause/);
});

test("each reason for silence has its icon and is told", () => {
  const states = ["disabled", "snoozed", "excluded", "stopped", "failed"];
  const shown = states.map((state) => describeState(status(state, "why"), 0, 5));
  assert.equal(new Set(shown.map(({ text }) => text)).size, states.length);
  assert.deepEqual(shown.map(({ tooltip }) => tooltip), states.map((state) => `dg-lsp: ${state}: why`));
});
