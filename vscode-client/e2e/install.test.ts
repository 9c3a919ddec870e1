/** How the extension and the server are installed, with no network and no package index. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Code, DG_LSP, PYTHON, ROOT, until } from "./code";
import { startEngine } from "./engine";

const NO_SERVER = { "dgLsp.server.path": "", "dgLsp.engine.model": "scripted", "dgLsp.engine.start": false };
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

/** An environment in which no server is installed and no package can be fetched; models are there. */
function bare(): Record<string, string> {
  return {
    HOME: home,
    PATH: "/usr/bin:/bin",
    PIP_NO_INDEX: "1",
    PIP_FIND_LINKS: path.join(home, "wheels"),
    XDG_DATA_HOME: process.env["XDG_DATA_HOME"] ?? path.join(homedir(), ".local/share"),
    DG_LSP_RUNTIME_DIR: path.join(home, "run"),
    DG_LSP_STATISTICS: path.join(home, "statistics"),
    PYTHONPATH: ROOT,
  };
}

/** A wheel of the server's name, whose program is the server that is tested. */
function makeWheel(directory: string): void {
  const info = "dg_lsp-1.dist-info";
  const files = {
    "dg_lsp_wheel.py": `import os, sys\ndef main():\n    os.execv("${DG_LSP}", ["${DG_LSP}", *sys.argv[1:]])\n`,
    [`${info}/METADATA`]: "Metadata-Version: 2.1\nName: dg-lsp\nVersion: 1\nProvides-Extra: engine\n",
    [`${info}/WHEEL`]: "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    [`${info}/entry_points.txt`]: "[console_scripts]\ndg-lsp = dg_lsp_wheel:main\n",
    [`${info}/RECORD`]: "",
  };
  mkdirSync(directory, { recursive: true });
  const zip = "import json, sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n" +
    "    for name, text in json.loads(sys.argv[2]).items():\n        wheel.writestr(name, text)\n";
  execFileSync(PYTHON, ["-c", zip, path.join(directory, "dg_lsp-1-py3-none-any.whl"), JSON.stringify(files)]);
}

test("a missing server is one question; where it cannot be had, pip's reason is told", async () => {
  code = await Code.start({ settings: NO_SERVER, env: bare() });
  await code.untilStatus(/failed: the server is not installed/);
  const toasts = code.page.locator(".notification-toast");
  await toasts.getByText("the server is not installed").waitFor();
  assert.equal(await toasts.count(), 1);
  await code.picture("server-missing");
  await toasts.getByRole("button", { name: "Install" }).click();
  await toasts.getByText(/cannot be installed: installing the server and the engine: .*No matching distribution/).waitFor();
});

test("an installation can be cancelled, which ends what runs; the next one brings completions", async () => {
  const [slow, pid] = [path.join(home, "python3"), path.join(home, "pid")];
  writeFileSync(slow, `#!/bin/sh\n[ -e '${pid}' ] && exec '${PYTHON}' "$@"\necho $$ > '${pid}'\nexec sleep 1000\n`, { mode: 0o755 });
  makeWheel(path.join(home, "wheels"));
  code = await Code.start({ settings: { ...NO_SERVER, "dgLsp.server.python": slow }, env: bare() });
  const toasts = code.page.locator(".notification-toast");
  await toasts.getByRole("button", { name: "Install" }).click();
  await toasts.getByText("making a virtual environment").waitFor();
  await code.picture("installing");
  await until(() => existsSync(pid) && readFileSync(pid, "utf8") !== "");
  await toasts.getByRole("button", { name: "Cancel" }).click();
  await until(() => !existsSync(`/proc/${readFileSync(pid, "utf8").trim()}`), () => "it still runs");
  await toasts.first().waitFor({ state: "detached" });

  await code.choose("Install the Server");
  await code.untilStatus(/stopped: the engine starts with the first file/);
  const endEngine = await startEngine(path.join(home, "run")); // not before: it leaves when nobody needs it
  try {
    await code.open("a.txt", "# say alpha\n\n|\n");
    await code.untilStatus(/ready/);
    await code.type("x = ");
    await code.untilGhost("alpha");
  } finally {
    endEngine();
  }
});

test("a path that leads nowhere is named", async () => {
  code = await Code.start({ settings: { "dgLsp.server.path": "/nowhere/dg-lsp" }, env: bare() });
  await code.page.locator(".notification-toast").getByText("/nowhere/dg-lsp, which cannot be run").waitFor();
});
