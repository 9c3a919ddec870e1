/** A real VS Code under test: code-server with the packaged extension, driven in headless Chromium. */

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after, afterEach, type TestContext } from "node:test";
import { chromium, type BrowserContext, type Locator, type Page } from "playwright-core";

export const ROOT = path.resolve("..");
export const PYTHON = process.env["PYTHON"] ?? path.join(ROOT, ".venv/bin/python");
export const DG_LSP = path.join(path.dirname(PYTHON), "dg-lsp");
const TOOLS = process.env["E2E_TOOLS"] ?? path.join(ROOT, "build/e2e");
const PICTURES = path.resolve("out/pictures");
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const NODE = path.join(TOOLS, "bin/node");
const ENTRY = path.join(TOOLS, "node_modules/code-server/out/node/entry.js");
const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const SETTINGS = {
  "editor.fontSize": 15,
  "editor.minimap.enabled": false,
  "editor.wordBasedSuggestions": "off",
  "extensions.ignoreRecommendations": true,
  "files.trimTrailingWhitespace": false,
  "security.workspace.trust.enabled": false,
  "telemetry.telemetryLevel": "off",
  "window.restoreWindows": "none",
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "workbench.startupEditor": "none",
  "chat.disableAIFeatures": true,
};

// What all tests of a file share: the packaged extension, installed where there is no network, and a browser.
const EXTENSIONS = mkdtempSync(path.join(tmpdir(), "e2e-extensions-"));
const install = ["--extensions-dir", EXTENSIONS, "--install-extension", path.resolve("dist/dg-lsp.vsix")];
execFileSync("unshare", ["-rn", NODE, ENTRY, "--user-data-dir", path.join(EXTENSIONS, ".user"), ...install], { stdio: "pipe" });
const browser = chromium.launch({ executablePath: CHROMIUM, args: QUIET });

let newest: Code | undefined;

afterEach(async (context) => {
  const { name, passed } = context as TestContext & { passed: boolean };
  if (!passed) {
    await newest?.picture(`failed: ${name.replaceAll("/", " ")}`);
    console.log(newest?.log());
  }
});

after(async () => {
  await (await browser).close();
  rmSync(EXTENSIONS, { recursive: true, force: true });
});

/** What a test starts with. */
interface Start {
  readonly settings: object;
  readonly env: Readonly<Record<string, string>>; // what the language server will have
  readonly folders?: readonly string[]; // of the workspace, below its directory
  readonly other?: { publisher: string; name: string }; // the manifest of another extension
}

/** One VS Code with a workspace of its own. */
export class Code {
  readonly directory = mkdtempSync(path.join(tmpdir(), "e2e-"));
  readonly workspace = path.join(this.directory, "workspace");
  readonly userSettings = path.join(this.directory, "user/User/settings.json");
  readonly machineSettings = path.join(this.directory, "user/Machine/settings.json");
  private readonly port = 20_000 + Math.floor(Math.random() * 20_000);
  private server!: ChildProcess;
  private context!: BrowserContext;
  page!: Page;

  /** Starts it all, the extension included. */
  static async start({ settings, env, folders = [], other }: Start): Promise<Code> {
    const code = (newest = new Code());
    mkdirSync(code.workspace);
    folders.forEach((folder) => mkdirSync(path.join(code.workspace, folder)));
    const all = path.join(code.directory, "all.code-workspace");
    write(all, { folders: folders.map((folder) => ({ path: path.join(code.workspace, folder) })) });
    const user = { ...SETTINGS, "dgLsp.server.path": DG_LSP, ...settings };
    write(code.userSettings, user);
    write(code.machineSettings, user); // where a machine's own are kept
    code.server = code.spawn(other ? code.extensionsWith(other) : EXTENSIONS, env);
    await until(() => fetch(`http://127.0.0.1:${code.port}/healthz`).then(({ ok }) => ok, () => false));
    code.context = await (await browser).newContext({ viewport: { width: 960, height: 540 } });
    code.page = await code.context.newPage();
    code.page.setDefaultTimeout(120_000);
    const opened = folders.length > 0 ? `workspace=${all}` : `folder=${code.workspace}`;
    await code.page.goto(`http://127.0.0.1:${code.port}/?${opened}`);
    await code.status().waitFor();
    return code;
  }

  /** Writes the workspace's settings, which VS Code takes over while it runs. */
  configure(settings: object): void {
    write(path.join(this.workspace, ".vscode/settings.json"), settings);
  }

  /** Opens a new file in the window, the cursor at the mark `|`. */
  async open(where: string, marked: string): Promise<void> {
    const file = path.join(this.workspace, where);
    const name = path.basename(where);
    const before = marked.slice(0, marked.indexOf("|"));
    writeFileSync(file, marked.replace("|", ""));
    const line = before.split("\n").length;
    const column = before.length - before.lastIndexOf("\n");
    const found = this.page.locator(".quick-input-list .monaco-list-row").getByText(name).first();
    const active = this.page.locator(`.tab.active[data-resource-name="${name}"]`);
    await until(async () => {
      await this.press("Escape", "Control+p");
      await this.page.keyboard.insertText(`${file}:${line}:${column}`); // a whole path needs no search
      if (!(await appears(found))) {
        return false;
      }
      await this.press("Enter");
      return appears(active);
    }, () => `${name} does not open`);
    // A notebook that was left keeps its cells for a while, so a text is there once its editor has the keys.
    const ready = name.endsWith(".ipynb") ? ".notebookOverlay .cell" : ".editor-instance .monaco-editor.focused";
    await this.page.locator(ready).first().waitFor({ state: "attached" });
  }

  async type(text: string): Promise<void> {
    await this.page.keyboard.type(text, { delay: 40 });
  }

  async press(...keys: string[]): Promise<void> {
    for (const key of keys) {
      await this.page.keyboard.press(key);
    }
  }

  /** The ghost text on the screen, spaces as such; empty where there is none. */
  async ghost(): Promise<string> {
    const parts = await this.page.locator(GHOST).allTextContents();
    return parts.join("").replaceAll("\u00a0", " ");
  }

  /** Waits for a ghost text. */
  async untilGhost(wanted: string | RegExp): Promise<void> {
    let seen = "";
    const fits = async (): Promise<boolean> => {
      seen = await this.ghost();
      return typeof wanted === "string" ? seen === wanted : wanted.test(seen);
    };
    await until(fits, () => `ghost text is ${JSON.stringify(seen)}, not ${String(wanted)}`);
  }

  /** Waits until the saved file has this text. */
  async untilSaved(name: string, wanted: string): Promise<void> {
    const file = path.join(this.workspace, name);
    let seen = "";
    const fits = async (): Promise<boolean> => {
      await this.press("Control+s");
      seen = readFileSync(file, "utf8");
      return seen === wanted;
    };
    await until(fits, () => `${JSON.stringify(seen)} instead of ${JSON.stringify(wanted)}`);
  }

  /** Chooses an entry of the menu. */
  async choose(entry: string): Promise<void> {
    await this.status().click();
    await this.page.locator(".quick-input-widget input[type=text]").fill(entry); // it may be too far down to be there
    await this.page.locator(".quick-input-list .monaco-list-row.focused").filter({ hasText: entry }).waitFor();
    await this.press("Enter");
  }

  /** Runs a command of VS Code by its title. */
  async run(title: string): Promise<void> {
    await this.press("F1");
    await this.page.keyboard.insertText(title);
    await this.page.locator(".quick-input-list .monaco-list-row.focused").filter({ hasText: title }).waitFor();
    await this.press("Enter");
  }

  /** What the status bar says aloud. */
  status(): Locator {
    return this.page.locator('.statusbar-item[id*="dgLsp"]');
  }

  async untilStatus(wanted: RegExp): Promise<void> {
    let seen = "";
    const fits = async (): Promise<boolean> => {
      seen = (await this.status().locator("[aria-label]").first().getAttribute("aria-label")) ?? "";
      return wanted.test(seen);
    };
    await until(fits, () => `the status is ${JSON.stringify(seen)}, not ${String(wanted)}`);
  }

  /** Process ids of the language servers that serve this VS Code. */
  servers(): number[] {
    const lines = execFileSync("ps", ["-eo", "pid=,args=", "e", "ww"], { encoding: "utf8", maxBuffer: 1 << 26 }).split("\n");
    return lines
      .filter((line) => line.includes(`${DG_LSP} serve`) && line.includes(`E2E_DIRECTORY=${this.directory}`))
      .map((line) => Number.parseInt(line, 10));
  }

  async picture(name: string): Promise<void> {
    mkdirSync(PICTURES, { recursive: true });
    await this.page.screenshot({ path: path.join(PICTURES, `${name}.png`), animations: "disabled" });
  }

  /** What the extension and the server have logged. */
  log(): string {
    const files = readdirSync(path.join(this.directory, "user"), { recursive: true, encoding: "utf8" });
    const logs = files.filter((file) => file.endsWith("dg-lsp.log"));
    return logs.map((file) => readFileSync(path.join(this.directory, "user", file), "utf8")).join("\n");
  }

  async stop(): Promise<void> {
    await this.context.close();
    const gone = new Promise((resolve) => this.server.once("exit", resolve));
    this.server.kill();
    await gone;
    await until(() => this.servers().length === 0);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A directory of extensions: ours and one that does nothing. */
  private extensionsWith(manifest: { publisher: string; name: string }): string {
    const extensions = path.join(this.directory, "extensions");
    cpSync(EXTENSIONS, extensions, { recursive: true });
    rmSync(path.join(extensions, "extensions.json")); // VS Code then looks for itself what is there
    const directory = path.join(extensions, `${manifest.publisher}.${manifest.name}-1.0.0`);
    const version = { version: "1.0.0", engines: { vscode: "^1.100.0" }, main: "main.js" };
    write(path.join(directory, "package.json"), { ...manifest, ...version, activationEvents: ["*"] });
    writeFileSync(path.join(directory, "main.js"), "exports.activate = () => undefined;\n");
    return extensions;
  }

  private spawn(extensions: string, env: Readonly<Record<string, string>>): ChildProcess {
    const directories = ["--user-data-dir", path.join(this.directory, "user"), "--extensions-dir", extensions];
    const address = ["--auth", "none", "--bind-addr", `127.0.0.1:${this.port}`];
    const quiet = ["--disable-telemetry", "--disable-update-check", "--reconnection-grace-time", "3"];
    const environment = { ...process.env, ...env, E2E_DIRECTORY: this.directory };
    return spawn(NODE, [ENTRY, ...directories, ...address, ...quiet], { env: environment, stdio: "ignore" });
  }
}

export const GHOST = "[class*=ghost-text-decoration]";

/** Waits until the condition holds; what it fails with is said by `why`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  why = (): string => "it did not happen",
  seconds = 120, // far more than it takes: the machine may be busy
): Promise<void> {
  const end = Date.now() + 1000 * seconds;
  while (!(await condition())) {
    assert.ok(Date.now() < end, why());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Whether there is one within some seconds. */
export function appears(locator: Locator): Promise<boolean> {
  return locator.first().waitFor({ state: "attached", timeout: 5000 }).then(() => true, () => false);
}

function write(file: string, contents: object): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(contents));
}
