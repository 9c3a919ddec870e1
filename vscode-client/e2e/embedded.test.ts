/** The default model, its real engine and the views, of which pictures are kept. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import { Code, ROOT, until } from "./code";

const TEXT = `import os


def names(directory):
    |
`;
const runtime = mkdtempSync(path.join(tmpdir(), "dg-"));
const statistics = path.join(runtime, "statistics.jsonl");
let code: Code;

before(async () => {
  const env = {
    DG_LSP_RUNTIME_DIR: path.join(runtime, "run"),
    DG_LSP_STATISTICS: statistics,
    DG_LSP_IDLE_EXIT_S: "1",
    PYTHONPATH: ROOT,
  };
  code = await Code.start({ settings: { "dgLsp.engine.startTimeoutS": 120, "dgLsp.minScore": 0 }, env });
});

after(async () => {
  await code.stop();
  rmSync(runtime, { recursive: true, force: true });
});

test("the embedded model completes a Python function, and Tab takes what was shown", async () => {
  await code.open("names.py", TEXT);
  await code.untilStatus(/ready: dg-mini · cpu/);
  await code.type("return ");
  await code.untilGhost(/os\.listdir\(directory\)/);
  await code.untilStatus(/ready: dg-mini · cpu · last answer \d+ ms/);
  const shown = await code.ghost();
  await code.picture("ghost-text");
  await code.press("Tab");
  await code.untilSaved("names.py", TEXT.replace("|", `return ${shown}`));
});

test("the menu restarts the engine", async () => {
  await code.choose("Restart the Engine");
  await code.untilStatus(/starting|loading/);
  await code.untilStatus(/ready: dg-mini · cpu/);
});

test("the chosen model is kept as a setting and takes the place of the running one", async () => {
  for (const [model, status] of [["no-such-model", /failed: .*no-such-model/], ["dg-mini", /ready: dg-mini · cpu/]] as const) {
    await code.choose("Choose the Model");
    await code.page.locator(".quick-input-widget input[type=text]").fill(model);
    await code.press("Enter");
    await code.untilStatus(status);
    assert.ok(readFileSync(code.machineSettings, "utf8").includes(`"dgLsp.engine.model": "${model}"`));
  }
});

test("the menu opens from the status bar and leads to the statistics", async () => {
  const at = Math.floor(Date.now() / 1000) - 86_400;
  const lines = Array.from({ length: 40 }, (_, index) => ({ at, event: "shown", ms: 60 + 9 * index }));
  const outcomes = Array.from({ length: 20 }, (_, index) => ({
    at,
    event: "outcome",
    how: ["full", "full", "partial", "typed", "rejected"][index % 5],
    accepted: index % 5 < 3 ? 24 : 0,
  }));
  const kept = [15, 120, 600].map((after_s) => ({ at, event: "retained", after_s, kept: 1000 - after_s, of: 1000 }));
  const all = [...lines, ...outcomes, ...kept, { at, event: "typed", typed: 900 }];
  writeFileSync(statistics, all.map((line) => `${JSON.stringify(line)}\n`).join(""));

  await code.status().click();
  const entry = code.page.locator(".quick-input-widget").getByText("Statistics");
  await entry.waitFor();
  await code.picture("menu");
  await entry.click();
  const heading = "Completions on this machine";
  let text = "";
  await until(async () => {
    const texts = await Promise.all(code.page.frames().map((frame) => frame.locator("body").innerText().catch(() => "")));
    text = texts.find((body) => body.includes(heading)) ?? "";
    return text !== "";
  });
  assert.match(text, /Of what was accepted, still there/);
  await code.page.waitForTimeout(500); // until it is painted: the picture is for people
  await code.picture("statistics");
});

test("the menu leads to the log, the walkthrough and the settings", async () => {
  await code.choose("Log");
  await code.page.locator(".output-view .view-line").filter({ hasText: /\[(info|warning|error)\]/ }).first().waitFor();
  await code.choose("Walkthrough");
  await code.page.getByText("A language server, an engine and a small model").first().waitFor();
  await code.picture("walkthrough");
  await code.run("dg-lsp: Settings"); // the menu's entries are commands too
  await code.page.locator(".settings-editor").getByText("Whether anything is offered").first().waitFor();
});
