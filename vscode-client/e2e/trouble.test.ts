/** What a user is told where something is missing, and what a workspace that is not trusted may do. */

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Code, ROOT, until } from "./code";

let home: string;
let code: Code | undefined;

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), "dg-"));
});

afterEach(async () => {
  await code?.stop();
  code = undefined;
  rmSync(home, { recursive: true, force: true });
});

/** An environment in which no server is installed and no package can be fetched. */
function bare(): Record<string, string> {
  return { HOME: home, PATH: "/usr/bin:/bin", PIP_NO_INDEX: "1", XDG_DATA_HOME: path.join(home, "data") };
}

test("a missing engine is a status that says what to do", async () => {
  const env = { DG_LSP_RUNTIME_DIR: path.join(home, "run"), PYTHONPATH: ROOT };
  code = await Code.start({ "dgLsp.engine.start": false }, env);
  await code.open("a.txt", "|\n");
  await code.type("x = ");
  await code.untilStatus(/failed: no engine runs and engine.start is off; start one with `dg-lsp engine`/);
});

test("a missing server is one question; offline, installing it fails with pip's reason", async () => {
  code = await Code.start({ "dgLsp.server.path": "" }, bare());
  await code.untilStatus(/failed: the server is not installed/);
  const toasts = code.page.locator(".notification-toast");
  await toasts.getByText("the server is not installed").waitFor();
  assert.equal(await toasts.count(), 1);
  await code.picture("server-missing");
  await toasts.getByRole("button", { name: "Install" }).click();
  await toasts.getByText(/cannot be installed: installing the server .* No matching distribution/).waitFor({ timeout: 90_000 });
});

test("a path that leads nowhere is named", async () => {
  code = await Code.start({ "dgLsp.server.path": "/nowhere/dg-lsp" }, bare());
  await code.page.locator(".notification-toast").getByText("/nowhere/dg-lsp, which cannot be run").waitFor();
});

for (const trusted of [false, true]) {
  test(`a workspace that is ${trusted ? "" : "not "}trusted ${trusted ? "may bring" : "cannot bring"} its own server`, async () => {
    const settings = { "security.workspace.trust.enabled": !trusted, "security.workspace.trust.startupPrompt": "never" };
    code = await Code.start({ ...settings, "dgLsp.server.path": "" }, bare());
    const ran = path.join(home, "ran");
    const decoy = path.join(code.workspace, ".venv/bin/dg-lsp");
    mkdirSync(path.dirname(decoy), { recursive: true });
    writeFileSync(decoy, `#!/bin/sh\ntouch '${ran}'\n`);
    chmodSync(decoy, 0o755);
    code.configure({ "dgLsp.server.path": decoy });
    await code.open("a.txt", "|\n");
    if (trusted) {
      await until(() => existsSync(ran), () => "it did not run");
    } else {
      await code.untilStatus(/failed: the server is not installed/);
      assert.ok(!existsSync(ran));
    }
  });
}
