/** The server's life: found, started with the settings, started again when it ends. */

import { access, constants } from "node:fs/promises";
import { homedir } from "node:os";
import * as vscode from "vscode";
import { CloseAction, ErrorAction, LanguageClient, type ErrorHandler, type Middleware } from "vscode-languageclient/node";
import { Backoff } from "./backoff";
import { places } from "./places";
import { findRival } from "./rivals";
import type { Status } from "./state";
import type { StatusItem } from "./status";

const NOT_THE_SERVERS: readonly string[] = ["server", "trace", "yieldToOthers"];

/** One server and its client; `start` may be called again at any time. */
export class Server implements vscode.Disposable {
  private client: LanguageClient | undefined;
  private changing: Promise<unknown> = Promise.resolve(); // starts and stops, one after the other

  constructor(
    private readonly log: vscode.LogOutputChannel,
    private readonly item: StatusItem,
    private readonly privateVenv: string,
  ) {}

  /** Starts the server, anew if it runs; false where none is installed. */
  start(): Promise<boolean> {
    const started = this.changing.then(() => this.restart());
    this.changing = started.catch(() => undefined);
    return started;
  }

  async dispose(): Promise<void> {
    await this.client?.dispose().catch(() => undefined); // it may have died already
    this.client = undefined;
  }

  private async restart(): Promise<boolean> {
    await this.dispose();
    const command = await this.find();
    if (!command) {
      this.fail("the server is not installed");
      return false;
    }
    this.log.info(`starting ${command}`);
    this.item.show("stopped", "the engine starts with the first file");
    this.client = new LanguageClient("dgLsp", "dg-lsp", { command, args: ["serve"] }, {
      documentSelector: ["file", "untitled", "vscode-notebook-cell"].map((scheme) => ({ scheme })),
      initializationOptions: settings(),
      synchronize: { configurationSection: "dgLsp" },
      outputChannel: this.log,
      errorHandler: this.errorHandler(new Backoff()),
      middleware: this.middleware(),
      initializationFailedHandler: () => false,
    });
    this.client.onNotification("dg/status", ({ state, message, progress }: Status) =>
      this.item.show(state, message, progress),
    );
    await this.client.start().catch((error: unknown) => this.fail(`${command} does not start: ${String(error)}`));
    return true;
  }

  private async find(): Promise<string | undefined> {
    const folders = vscode.workspace.isTrusted ? (vscode.workspace.workspaceFolders ?? []) : [];
    const all = places({
      setting: vscode.workspace.getConfiguration("dgLsp").get<string>("server.path", ""),
      folders: folders.map(({ uri }) => uri.fsPath),
      env: process.env,
      home: homedir(),
      privateVenv: this.privateVenv,
      windows: process.platform === "win32",
    });
    for (const place of all) {
      if (await access(place, constants.X_OK).then(() => true, () => false)) {
        return place;
      }
    }
    this.log.warn(`no server at ${all.join(", ")}`);
    return undefined;
  }

  private fail(message: string): void {
    this.log.error(message);
    this.item.show("failed", message);
  }

  private errorHandler(backoff: Backoff): ErrorHandler {
    return {
      error: () => ({ action: ErrorAction.Continue, handled: true }),
      closed: async () => {
        const wait = backoff.next();
        if (wait === undefined) {
          this.fail("the server keeps ending; see its log");
          return { action: CloseAction.DoNotRestart, handled: true };
        }
        this.item.show("starting", "the server has ended and is started again");
        await new Promise((resolve) => setTimeout(resolve, wait));
        return { action: CloseAction.Restart, handled: true };
      },
    };
  }

  private middleware(): Middleware {
    return {
      provideInlineCompletionItems: (document, position, context, token, next) => {
        const unasked = context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic;
        const selected = vscode.window.activeTextEditor?.selection.isEmpty === false; // as in a snippet
        const gives = vscode.workspace.getConfiguration("dgLsp").get("yieldToOthers") && findRival();
        if (unasked && (selected || gives)) {
          return undefined;
        }
        return this.item.timed(async () => {
          await this.client?.sendNotification("dg/didView", { editors: vscode.window.visibleTextEditors.map(view) });
          return next(document, position, context, token);
        });
      },
      workspace: {
        configuration: ({ items }) => items.map(settings),
        didChangeConfiguration: (_, next) => next(undefined), // that they have changed: the server asks
      },
    };
  }
}

/** What the server cannot know of an editor. */
function view({ document, options, visibleRanges }: vscode.TextEditor): object {
  const { tabSize, insertSpaces } = options;
  const shown = visibleRanges.map(({ start, end }) => ({ start, end }));
  return { uri: document.uri.toString(), formattingOptions: { tabSize, insertSpaces }, visibleRanges: shown };
}

/** What the server is told: all settings, as VS Code has merged them, but those of this extension alone. */
function settings(): Record<string, unknown> {
  const all = vscode.workspace.getConfiguration().get<Record<string, unknown>>("dgLsp", {});
  return Object.fromEntries(Object.entries(all).filter(([name]) => !NOT_THE_SERVERS.includes(name)));
}
