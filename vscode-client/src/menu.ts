/** What a user can do: the entries of the menu, most of them commands of their own. */

import * as vscode from "vscode";
import { showStatistics } from "./statistics";
import type { Server } from "./server";

const MODELS: readonly string[] = ["dg-mini", "smollm2-135m"];

/** One thing to do; those with a command stand in the command palette too. */
interface Action {
  readonly label: string;
  readonly command?: string;
  readonly run: () => unknown;
}

/** Everything that the menu offers, in its order. */
export function actions(server: Server, log: vscode.LogOutputChannel, install: () => unknown): Action[] {
  const turnOver = async (scope: string): Promise<void> => {
    const document = vscode.window.activeTextEditor?.document;
    const on = await server.execute("dgLsp.toggle", scope, document?.uri.toString() ?? "", document?.languageId ?? "");
    vscode.window.setStatusBarMessage(`dg-lsp is ${on === true ? "on" : "off"} (${scope})`, 3000);
  };
  return [
    { label: "$(circle-slash) Turn on or off", command: "dgLsp.turnOver", run: () => turnOver("global") },
    { label: "$(file-code) Turn on or off in this language", run: () => turnOver("language") },
    { label: "$(root-folder) Turn on or off in this workspace", run: () => turnOver("workspace") },
    { label: "$(debug-pause) Pause for 5 minutes", command: "dgLsp.pause", run: () => server.execute("dgLsp.snooze", 5) },
    { label: "$(debug-continue) End the pause", run: () => server.execute("dgLsp.snooze", 0) },
    { label: "$(chip) Choose the model…", command: "dgLsp.selectModel", run: () => selectModel() },
    { label: "$(graph) Statistics", command: "dgLsp.statistics", run: () => showStatistics(server) },
    { label: "$(output) Log", command: "dgLsp.log", run: () => log.show() },
    { label: "$(settings-gear) Settings", run: () => execute("workbench.action.openSettings", "dgLsp") },
    { label: "$(sync) Restart the engine", run: () => server.execute("dgLsp.restartEngine") },
    { label: "$(debug-restart) Restart the server", command: "dgLsp.restartServer", run: () => server.start() },
    { label: "$(desktop-download) Install the server", command: "dgLsp.installServer", run: install },
    { label: "$(book) Walkthrough", run: () => execute("workbench.action.openWalkthrough", "dg-lsp.dg-lsp#start") },
  ];
}

/** Registers the menu and its commands; what fails is one message. */
export function registerMenu(all: readonly Action[]): vscode.Disposable[] {
  const guarded = async (action: Action | undefined): Promise<void> => {
    try {
      await action?.run();
    } catch (error) {
      void vscode.window.showErrorMessage(`dg-lsp: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  const menu = async (): Promise<void> =>
    guarded(await vscode.window.showQuickPick(all, { placeHolder: "dg-lsp" }));
  return [
    vscode.commands.registerCommand("dgLsp.menu", menu),
    ...all.flatMap((action) =>
      action.command ? [vscode.commands.registerCommand(action.command, () => guarded(action))] : [],
    ),
  ];
}

async function selectModel(): Promise<void> {
  const other = "A model directory…";
  let model = await vscode.window.showQuickPick([...MODELS, other], { placeHolder: "Model" });
  if (model === other) {
    const picked = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false });
    model = picked?.[0]?.fsPath;
  }
  if (model) {
    await vscode.workspace.getConfiguration("dgLsp").update("engine.model", model, true);
  }
}

function execute(command: string, ...args: unknown[]): Thenable<unknown> {
  return vscode.commands.executeCommand(command, ...args);
}
