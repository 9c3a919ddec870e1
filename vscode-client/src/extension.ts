/** What VS Code starts and ends: the parts, put together. */

import * as vscode from "vscode";
import { install } from "./install";
import { actions, registerMenu } from "./menu";
import { warnOfRivals } from "./rivals";
import { Server } from "./server";
import { StatusItem } from "./status";

/** Starts the server; where there is none, offers once to install it. */
export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("dg-lsp", { log: true });
  const venv = vscode.Uri.joinPath(context.globalStorageUri, "server").fsPath;
  const item = new StatusItem();
  const server = new Server(log, item, venv);
  const installServer = async (): Promise<void> => {
    if (await installWithProgress(venv, log)) {
      await server.start();
    }
  };
  const start = async (): Promise<void> => {
    if (!(await server.start())) {
      await offerInstallation(installServer);
    }
  };
  context.subscriptions.push(
    log,
    item,
    server,
    ...registerMenu(actions(server, log, installServer)),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("dgLsp.server.path")) {
        await start();
      } else if (event.affectsConfiguration("dgLsp")) {
        await server.settingsChanged();
      }
    }),
    vscode.workspace.onDidGrantWorkspaceTrust(start),
    vscode.extensions.onDidChange(() => warnOfRivals(context.globalState)),
  );
  void warnOfRivals(context.globalState);
  await start();
}

async function offerInstallation(installServer: () => Promise<void>): Promise<void> {
  const set = vscode.workspace.getConfiguration("dgLsp").get<string>("server.path", "");
  const message = set
    ? `dg-lsp: the setting dgLsp.server.path names ${set}, which cannot be run.`
    : "dg-lsp: the server is not installed. It can be put into a Python environment of its own, " +
      "with the engine and a small model.";
  const choices = set ? ["Set Its Path"] : ["Install", "Set Its Path"];
  const choice = await vscode.window.showWarningMessage(message, ...choices);
  if (choice === "Install") {
    await installServer();
  } else if (choice) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "dgLsp.server");
  }
}

/** Whether it has been installed; says why not. */
async function installWithProgress(venv: string, log: vscode.LogOutputChannel): Promise<boolean> {
  const settings = vscode.workspace.getConfiguration("dgLsp.server");
  const python = settings.get<string>("python", "python3");
  const requirement = settings.get<string>("package", "dg-lsp[engine]");
  const options = { location: vscode.ProgressLocation.Notification, title: "dg-lsp", cancellable: true };
  return vscode.window.withProgress(options, async (progress, token) => {
    const abort = new AbortController();
    token.onCancellationRequested(() => abort.abort());
    try {
      const report = (message: string): void => progress.report({ message });
      await install({ python, venv, requirement }, report, (line) => log.info(line), abort.signal);
      return true;
    } catch (error) {
      if (!abort.signal.aborted) {
        const message = error instanceof Error ? error.message : String(error);
        void vscode.window.showErrorMessage(`dg-lsp cannot be installed: ${message}`);
      }
      return false;
    }
  });
}
