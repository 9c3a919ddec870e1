/** The server's life: found, started with the settings, started again when it ends. */

import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import * as vscode from "vscode";
import { CloseAction, ErrorAction, LanguageClient, type LanguageClientOptions } from "vscode-languageclient/node";
import { Backoff } from "./backoff";
import { places } from "./places";
import { findRival } from "./rivals";
import type { Status } from "./state";
import { createStatusItem } from "./status";

const IDLE: Status = { state: "stopped", message: "the engine starts with the first file" };

/** One server and its client; `start` may be called again at any time. */
export class Server implements vscode.Disposable {
  private client: LanguageClient | undefined;
  private starting = Promise.resolve(true); // one start after the other
  private readonly show = createStatusItem();

  constructor(
    private readonly log: vscode.LogOutputChannel,
    private readonly privateVenv: string,
  ) {}

  /** Starts the server, anew if it runs; false where none is installed. */
  start(): Promise<boolean> {
    this.starting = this.starting.then(() => this.restart());
    return this.starting;
  }

  async dispose(): Promise<void> {
    await this.client?.dispose().catch(() => undefined); // it may have died already
  }

  private async restart(): Promise<boolean> {
    await this.dispose();
    const command = this.find();
    if (!command) {
      this.fail("the server is not installed");
      return false;
    }
    this.log.info(`starting ${command}`);
    this.show(IDLE);
    this.client = new LanguageClient("dgLsp", "dg-lsp", { command, args: ["serve"] }, this.options());
    this.client.onNotification("dg/status", (status: Status) => this.show(status));
    await this.client.start().catch((error: unknown) => this.fail(`${command} does not start: ${String(error)}`));
    return true;
  }

  private find(): string | undefined {
    const setting = vscode.workspace.getConfiguration("dgLsp").get<string>("server.path", "");
    const folders = vscode.workspace.isTrusted ? (vscode.workspace.workspaceFolders ?? []) : [];
    const paths = folders.map(({ uri }) => uri.fsPath);
    return places(setting, paths, this.privateVenv).find((place) => existsSync(place));
  }

  private options(): LanguageClientOptions {
    const backoff = new Backoff();
    return {
      documentSelector: ["file", "untitled", "vscode-notebook-cell"].map((scheme) => ({ scheme })),
      initializationOptions: () => vscode.workspace.getConfiguration("dgLsp"),
      initializationFailedHandler: () => false,
      outputChannel: this.log,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: async () => {
          const wait = backoff.next();
          if (wait === undefined) {
            this.fail("the server keeps ending; see its log");
            return { action: CloseAction.DoNotRestart, handled: true };
          }
          this.show({ state: "starting", message: "the server has ended and is started again" });
          await setTimeout(wait);
          this.show(IDLE);
          return { action: CloseAction.Restart, handled: true };
        },
      },
      middleware: {
        provideInlineCompletionItems: async (document, position, context, token, next) => {
          const selected = vscode.window.activeTextEditor?.selection.isEmpty === false; // as in a snippet
          const gives = vscode.workspace.getConfiguration("dgLsp").get("yieldToOthers") && findRival();
          if ((selected || gives) && context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic) {
            return undefined;
          }
          await this.client?.sendNotification("dg/didView", { editors: vscode.window.visibleTextEditors.map(view) });
          return next(document, position, context, token);
        },
      },
    };
  }

  private fail(message: string): void {
    this.log.error(message);
    this.show({ state: "failed", message });
  }
}

/** What the server cannot know of an editor. */
function view({ document, options, visibleRanges }: vscode.TextEditor): object {
  const { tabSize, insertSpaces } = options;
  const shown = visibleRanges.map(({ start, end }) => ({ start, end }));
  return { uri: document.uri.toString(), formattingOptions: { tabSize, insertSpaces }, visibleRanges: shown };
}
