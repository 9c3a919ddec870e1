/** A real VS Code under test: code-server with the packaged extension, driven in headless Chromium. */

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { chromium, type Browser, type Locator, type Page } from "playwright-core";

export const ROOT = path.resolve("..");
export const PYTHON = process.env["PYTHON"] ?? path.join(ROOT, ".venv/bin/python");
export const DG_LSP = path.join(path.dirname(PYTHON), "dg-lsp");
const TOOLS = process.env["E2E_TOOLS"] ?? path.join(ROOT, "build/e2e");
const PICTURES = path.resolve("out/pictures");
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
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

/** One VS Code with a workspace of its own. */
export class Code {
  readonly directory = mkdtempSync(path.join(tmpdir(), "e2e-"));
  readonly workspace = path.join(this.directory, "workspace");
  private readonly port = 20_000 + Math.floor(Math.random() * 20_000);
  private server!: ChildProcess;
  private browser!: Browser;
  page!: Page;

  /** Installs the extension and starts it all; `env` is what the language server will have. */
  static async start(settings: object, env: Record<string, string>): Promise<Code> {
    const code = new Code();
    mkdirSync(code.workspace, { recursive: true });
    const user = { ...SETTINGS, "dgLsp.server.path": DG_LSP, ...settings };
    write(path.join(code.directory, "user/User/settings.json"), user);
    code.run(["--install-extension", path.resolve("dist/dg-lsp.vsix")]);
    code.server = code.spawn(
      ["--auth", "none", "--bind-addr", `127.0.0.1:${code.port}`, "--disable-telemetry",
        "--disable-update-check", "--reconnection-grace-time", "3"],
      env,
    );
    await until(() => fetch(`http://127.0.0.1:${code.port}/healthz`).then(({ ok }) => ok, () => false));
    code.browser = await chromium.launch({ executablePath: CHROMIUM, args: QUIET });
    code.page = await code.browser.newPage({ viewport: { width: 960, height: 540 } });
    await code.page.goto(`http://127.0.0.1:${code.port}/?folder=${code.workspace}`);
    await code.status().waitFor();
    return code;
  }

  /** Writes the workspace's settings, which VS Code takes over while it runs. */
  configure(settings: object): void {
    write(path.join(this.workspace, ".vscode/settings.json"), settings);
  }

  /** Opens a new file in the window, the cursor at the mark `|`. */
  async open(name: string, marked: string): Promise<void> {
    const file = path.join(this.workspace, name);
    const before = marked.slice(0, marked.indexOf("|"));
    writeFileSync(file, marked.replace("|", ""));
    const line = before.split("\n").length;
    const column = before.length - before.lastIndexOf("\n");
    const found = this.page.locator(".quick-input-list .monaco-list-row").getByText(name).first();
    const active = this.page.locator(`.tab.active[data-resource-name="${name}"]`);
    await until(async () => {
      await this.press("Escape", "Control+p"); // again where the search did not know the file yet
      await this.page.keyboard.insertText(`${name}:${line}:${column}`);
      if (!(await appears(found))) {
        return false;
      }
      await this.press("Enter");
      return appears(active);
    }, () => `${name} does not open`);
    await this.page.locator(".editor-instance .cursor").first().waitFor({ state: "attached" });
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
    await this.page.screenshot({ path: path.join(PICTURES, `${name}.png`) });
  }

  async stop(): Promise<void> {
    await this.browser.close();
    const gone = new Promise((resolve) => this.server.once("exit", resolve));
    this.server.kill();
    await gone;
    await until(() => this.servers().length === 0);
    rmSync(this.directory, { recursive: true, force: true });
  }

  private get command(): [string, string[]] {
    const node = path.join(TOOLS, "bin/node");
    const entry = path.join(TOOLS, "node_modules/code-server/out/node/entry.js");
    const directories = [
      "--user-data-dir", path.join(this.directory, "user"),
      "--extensions-dir", path.join(this.directory, "extensions"),
    ];
    return [node, [entry, ...directories]];
  }

  private run(args: string[]): void {
    const [node, before] = this.command;
    execFileSync(node, [...before, ...args], { stdio: "pipe" });
  }

  private spawn(args: string[], env: Record<string, string>): ChildProcess {
    const [node, before] = this.command;
    const environment = { ...process.env, ...env, E2E_DIRECTORY: this.directory };
    return spawn(node, [...before, ...args], { env: environment, stdio: "ignore" });
  }
}

export const GHOST = "[class*=ghost-text-decoration]";

/** Waits until the condition holds; what it fails with is said by `why`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  why = (): string => "it did not happen",
  seconds = 30,
): Promise<void> {
  const end = Date.now() + 1000 * seconds;
  while (!(await condition())) {
    assert.ok(Date.now() < end, why());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function appears(locator: Locator): Promise<boolean> {
  return locator.waitFor({ timeout: 2000 }).then(() => true, () => false);
}

function write(file: string, contents: object): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(contents));
}
