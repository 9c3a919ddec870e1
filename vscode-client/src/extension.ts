/** What VS Code starts and ends: the parts, put together. */

import * as vscode from "vscode";
import { commands } from "./commands";
import { install } from "./install";
import { warnOfRivals } from "./rivals";
import { Server } from "./server";
import { StatusItem } from "./status";

/** Starts the server; where there is none, offers once to install it. */
export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("dg-lsp", { log: true });
  const venv = vscode.Uri.joinPath(context.globalStorageUri, "server").fsPath;
  const item = new StatusItem();
  const server = new Server(log, item, venv);
  const start = async (): Promise<void> => {
    if (!(await server.start())) {
      await offerInstallation();
    }
  };
  const all = {
    ...commands(context.extension),
    "dgLsp.log": () => log.show(),
    "dgLsp.restartServer": start,
    "dgLsp.installServer": async () => (await installWithProgress(venv, log)) && server.start(),
  };
  context.subscriptions.push(
    log,
    item,
    server,
    ...Object.entries(all).map(([name, run]) => vscode.commands.registerCommand(name, run)),
    vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration("dgLsp.server.path") && start()),
    vscode.workspace.onDidGrantWorkspaceTrust(start),
    vscode.extensions.onDidChange(() => warnOfRivals(context.globalState)),
  );
  void warnOfRivals(context.globalState);
  await start();
}

async function offerInstallation(): Promise<void> {
  const set = vscode.workspace.getConfiguration("dgLsp").get<string>("server.path", "");
  const message = set
    ? `dg-lsp: the setting dgLsp.server.path names ${set}, which cannot be run.`
    : "dg-lsp: the server is not installed. It can be put into a Python environment of its own, " +
      "with the engine and a small model.";
  const choices = set ? ["Set Its Path"] : ["Install", "Set Its Path"];
  const choice = await vscode.window.showWarningMessage(message, ...choices);
  if (choice === "Install") {
    await vscode.commands.executeCommand("dgLsp.installServer");
  } else if (choice) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "dgLsp.server");
  }
}

/** Whether it has been installed; says why not. */
async function installWithProgress(venv: string, log: vscode.LogOutputChannel): Promise<boolean> {
  const settings = vscode.workspace.getConfiguration("dgLsp.server");
  const what = { venv, python: settings.get("python", ""), requirement: settings.get("package", "") };
  const options = { location: vscode.ProgressLocation.Notification, title: "dg-lsp", cancellable: true };
  return vscode.window.withProgress(options, async (progress, token) => {
    const abort = new AbortController();
    token.onCancellationRequested(() => abort.abort());
    const report = (message: string): void => progress.report({ message });
    try {
      await install(what, report, (line) => log.info(line), abort.signal);
    } catch (error) {
      if (!abort.signal.aborted) {
        void vscode.window.showErrorMessage(`dg-lsp cannot be installed: ${(error as Error).message}`);
      }
      return false;
    }
    return true;
  });
}
