/** The server's life: found, started with the settings, started again when it ends. */

import { access, constants } from "node:fs/promises";
import { homedir } from "node:os";
import * as path from "node:path";
import * as vscode from "vscode";
import {
  CloseAction,
  DidChangeConfigurationNotification,
  ErrorAction,
  ExecuteCommandRequest,
  LanguageClient,
  State,
  type ErrorHandler,
  type Middleware,
} from "vscode-languageclient/node";
import { Backoff } from "./backoff";
import { places } from "./places";
import { activeRivals } from "./rivals";
import { serverSettings } from "./settings";
import type { Status } from "./state";
import type { StatusItem } from "./status";

const STARTING: Status = { state: "starting", message: "starting the server", progress: 0 };

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

  /** Has the server fetch the settings. */
  async settingsChanged(): Promise<void> {
    if (this.client?.isRunning()) {
      await this.client.sendNotification(DidChangeConfigurationNotification.type, { settings: null });
    }
  }

  /** One of the server's commands; rejects where it does not run. */
  async execute(command: string, ...args: unknown[]): Promise<unknown> {
    if (!this.client?.isRunning()) {
      throw new Error("the server does not run");
    }
    return this.client.sendRequest(ExecuteCommandRequest.type, { command, arguments: args });
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
    this.item.show(STARTING);
    const client = new LanguageClient(
      "dgLsp",
      "dg-lsp",
      { command, args: ["serve"] },
      {
        documentSelector: ["file", "untitled", "vscode-notebook-cell"].map((scheme) => ({ scheme })),
        initializationOptions: serverSettings(read),
        outputChannel: this.log,
        traceOutputChannel: this.log,
        errorHandler: this.errorHandler(new Backoff()),
        middleware: this.middleware(),
        initializationFailedHandler: () => false,
      },
    );
    this.listen(client);
    this.client = client;
    try {
      await client.start();
    } catch (error) {
      this.fail(`${command} does not start: ${String(error)}`);
    }
    return true;
  }

  /** Shows the server's statuses; until it has said anything, that the engine is not needed yet. */
  private listen(client: LanguageClient): void {
    let quiet = true;
    client.onNotification("dg/status", (status: Status) => {
      quiet = false;
      this.item.show(status);
    });
    client.onDidChangeState(({ newState }) => {
      if (newState === State.Starting) {
        quiet = true;
      } else if (newState === State.Running && quiet) {
        this.item.show({ state: "stopped", message: "the engine starts with the first file", progress: 0 });
      }
    });
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
        return path.resolve(place);
      }
    }
    this.log.warn(`no server at ${all.join(", ")}`);
    return undefined;
  }

  private fail(message: string): void {
    this.log.error(message);
    this.item.show({ state: "failed", message, progress: 0 });
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
        this.item.show(STARTING);
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
        if (unasked && (selected || (read("yieldToOthers") === true && activeRivals().length > 0))) {
          return undefined;
        }
        return this.item.timed(async () => next(document, position, context, token));
      },
      workspace: {
        configuration: ({ items }) => items.map(() => serverSettings(read)),
        didChangeConfiguration: () => this.settingsChanged(),
      },
    };
  }
}

function read(name: string): unknown {
  return vscode.workspace.getConfiguration("dgLsp").get(name);
}
