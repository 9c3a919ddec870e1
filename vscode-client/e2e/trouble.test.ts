/** What a user is told where something is missing or in the way, and what a workspace may do. */

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { appears, Code, GHOST, ROOT, until } from "./code";
import { startEngine } from "./engine";

const SAY = "# say alpha beta(gamma)\n\n";
const SCRIPTED = { "dgLsp.engine.model": "scripted", "dgLsp.engine.start": false };
let home: string;
let code: Code | undefined;
let endEngine: (() => void) | undefined;

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), "dg-"));
});

afterEach(async () => {
  await code?.stop();
  endEngine?.();
  code = endEngine = undefined;
  rmSync(home, { recursive: true, force: true });
});

/** The environment of a server whose engine has its files in `home`. */
function env(): Record<string, string> {
  return { DG_LSP_RUNTIME_DIR: home, DG_LSP_STATISTICS: path.join(home, "statistics"), PYTHONPATH: ROOT };
}

test("a missing engine is a status that says what to do; one that loads says how far it is", async () => {
  const settings = { "dgLsp.engine.model": "load-slow", "dgLsp.engine.start": false };
  code = await Code.start({ settings, env: env() });
  await code.open("a.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilStatus(/failed: no engine runs and engine.start is off; start one with `dg-lsp engine`/);

  const hold = path.join(home, "hold");
  writeFileSync(hold, "");
  endEngine = await startEngine(home, "load-slow", { SCRIPTED_ENGINE_HOLD: hold });
  await code.choose("Restart the Server");
  await code.untilStatus(/loading: /);
  assert.match((await code.status().textContent()) ?? "", /dg-lsp \d+ %/);
  rmSync(hold);
  await code.untilStatus(/ready: load-slow · cpu/);
});

test("several folders are one server's; each can be turned off alone", async () => {
  endEngine = await startEngine(home);
  code = await Code.start({ settings: SCRIPTED, env: env(), folders: ["one", "two"] });
  await code.open("one/a.txt", `${SAY}|\n`);
  await code.untilStatus(/ready/);
  await code.choose("Turn On or Off in This Workspace");
  await code.untilStatus(/disabled: completions are off in this workspace/);
  await code.open("two/b.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  assert.equal(code.servers().length, 1);
});

test("another extension with ghost text is told of once; asked to, we give way to it", async () => {
  endEngine = await startEngine(home);
  const other = { publisher: "GitHub", name: "copilot", displayName: "The Other One" };
  const copilots = { "chat.disableAIFeatures": false, "chat.extensionUnification.enabled": false }; // or VS Code ignores it
  code = await Code.start({ settings: { ...SCRIPTED, ...copilots }, env: env(), other });
  const toasts = code.page.locator(".notification-toast");
  await toasts.getByText("The Other One shows ghost text too").waitFor();
  await code.picture("rival");
  await toasts.getByRole("button", { name: "Only When I Ask" }).click();
  const { userSettings } = code;
  await until(() => readFileSync(userSettings, "utf8").includes('"dgLsp.yieldToOthers": true'));
  await code.open("a.txt", `${SAY}|\n`);
  await code.untilStatus(/ready: scripted · cpu$/);
  await code.type("x = ");
  await code.untilSaved("a.txt", `${SAY}x = \n`);
  await code.untilStatus(/ready: scripted · cpu$/); // no request, so no answer whose time is shown
  assert.equal(await code.ghost(), "");
  await code.press("Alt+Backslash");
  await code.untilGhost("alpha beta(gamma)");
});

for (const trusted of [false, true]) {
  test(`a workspace that is ${trusted ? "" : "not "}trusted ${trusted ? "may" : "cannot"} bring its own server and choose the engine`, async () => {
    endEngine = await startEngine(home);
    const settings = { "security.workspace.trust.enabled": !trusted, "security.workspace.trust.startupPrompt": "never" };
    code = await Code.start({ settings: { ...settings, ...SCRIPTED }, env: env() });
    const ran = path.join(home, "ran");
    const decoy = path.join(code.workspace, ".venv/bin/dg-lsp");
    mkdirSync(path.dirname(decoy), { recursive: true });
    writeFileSync(decoy, `#!/bin/sh\ntouch '${ran}'\n`);
    chmodSync(decoy, 0o755);
    code.configure({ "dgLsp.engine.url": "http://127.0.0.1:9" });
    await code.open("a.txt", `${SAY}|\n`);
    if (trusted) {
      await code.untilStatus(/failed: no engine answers at http:\/\/127.0.0.1:9/);
      code.configure({ "dgLsp.server.path": decoy });
      await until(() => existsSync(ran), () => "it did not run");
    } else {
      code.configure({ "dgLsp.engine.url": "http://127.0.0.1:9", "dgLsp.server.path": decoy });
      await code.untilStatus(/ready: scripted/);
      await code.type("x = ");
      const window = code;
      await until(async () => {
        await window.press("Backspace", "Space"); // again where the server was started anew on the way
        return appears(window.page.locator(GHOST));
      });
      await code.untilGhost("alpha beta(gamma)");
      assert.ok(!existsSync(ran));
    }
  });
}
