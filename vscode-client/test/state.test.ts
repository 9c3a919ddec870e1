import assert from "node:assert/strict";
import { test } from "node:test";
import { describe as describeState } from "../src/state";

test("an engine that loads shows how far it is", () => {
  const shown = describeState({ state: "loading", message: "reading weights", progress: 0.456 });
  assert.equal(shown.text, "$(loading~spin) dg-lsp 46 %");
  assert.equal(shown.tooltip, "dg-lsp: loading: reading weights");
});

test("each state has its icon and is told with what the server says of it", () => {
  const states = ["ready", "thinking", "disabled", "snoozed", "excluded", "stopped", "failed"];
  const shown = states.map((state) => describeState({ state, message: "why" }));
  assert.equal(new Set(shown.map(({ text }) => text)).size, states.length);
  assert.deepEqual(shown.map(({ tooltip }) => tooltip), states.map((state) => `dg-lsp: ${state}: why`));
});

test("a state without a message is told as such, and one that nobody knows too", () => {
  assert.equal(describeState({ state: "thinking", message: "" }).tooltip, "dg-lsp: thinking");
  assert.equal(describeState({ state: "dancing", message: "" }).text, "$(question) dg-lsp");
});
