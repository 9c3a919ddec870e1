/** What VS Code starts and ends: the parts, put together. */

import * as vscode from "vscode";
import { commands } from "./commands";
import { install } from "./install";
import { warnOfRivals } from "./rivals";
import { Server } from "./server";

/** Starts the server; where there is none, offers once to install it. */
export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("dg-lsp", { log: true });
  const venv = vscode.Uri.joinPath(context.globalStorageUri, "server").fsPath;
  const server = new Server(log, venv);
  const start = async (): Promise<void> => {
    if (!(await server.start())) {
      await offerInstallation();
    }
  };
  const all = {
    ...commands(context.extension),
    "dgLsp.log": () => log.show(),
    "dgLsp.restartServer": start,
    "dgLsp.installServer": () => installServer(venv, log, start),
  };
  context.subscriptions.push(
    log,
    server,
    ...Object.entries(all).map(([name, run]) => vscode.commands.registerCommand(name, run)),
    vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration("dgLsp.server.path") && start()),
    vscode.workspace.onDidGrantWorkspaceTrust(start),
    vscode.extensions.onDidChange(() => warnOfRivals(context.globalState)),
  );
  void warnOfRivals(context.globalState);
  await start();
}

/** Asks what to do where there is no server. */
async function offerInstallation(): Promise<void> {
  const path = vscode.workspace.getConfiguration("dgLsp").get<string>("server.path", "");
  const [message = "", ...choices] = path
    ? [`dg-lsp: the setting dgLsp.server.path names ${path}, which cannot be run.`]
    : ["dg-lsp: the server is not installed. It can get a Python environment of its own, with a model.", "Install"];
  const choice = await vscode.window.showWarningMessage(message, ...choices, "Set Its Path");
  if (choice === "Install") {
    await vscode.commands.executeCommand("dgLsp.installServer");
  } else if (choice) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "dgLsp.server");
  }
}

/** Installs and starts it, or says why not. */
async function installServer(venv: string, log: vscode.LogOutputChannel, start: () => unknown): Promise<void> {
  const settings = vscode.workspace.getConfiguration("dgLsp.server");
  const what = { venv, python: settings.get("python", ""), requirement: settings.get("package", "") };
  const options = { location: vscode.ProgressLocation.Notification, title: "dg-lsp", cancellable: true };
  await vscode.window.withProgress(options, async (progress, token) => {
    const abort = new AbortController();
    token.onCancellationRequested(() => abort.abort());
    const report = (message: string): void => progress.report({ message });
    try {
      await install(what, report, (text) => log.info(text), abort.signal);
      void start();
    } catch (error) {
      if (!abort.signal.aborted) {
        void vscode.window.showErrorMessage(`dg-lsp cannot be installed: ${(error as Error).message}`);
      }
    }
  });
}
