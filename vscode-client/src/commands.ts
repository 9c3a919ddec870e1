/** What a user can do beside what the server's own commands do; `package.json` names and orders all. */

import * as vscode from "vscode";

/** Runs a command of the server, of this extension or of VS Code, which tells what fails. */
const run = vscode.commands.executeCommand;

type Contributed = Readonly<Record<"command" | "title" | "icon", string>>;

/** The commands that need nothing but VS Code and, most of them, the server's commands. */
export function commands({ packageJSON }: vscode.Extension<unknown>): Record<string, () => unknown> {
  const { contributes } = packageJSON as { contributes: { commands: Contributed[] } };
  return {
    "dgLsp.menu": () => showMenu(contributes.commands.filter(({ command }) => command !== "dgLsp.menu")),
    "dgLsp.toggleLanguage": () => toggle("language"),
    "dgLsp.toggleWorkspace": () => toggle("workspace"),
    "dgLsp.endPause": () => run("dgLsp.snooze", 0),
    "dgLsp.selectModel": selectModel,
    "dgLsp.statistics": showStatistics,
    "dgLsp.settings": () => run("workbench.action.openSettings", "dgLsp"),
    "dgLsp.walkthrough": () => run("workbench.action.openWalkthrough", "dg-lsp.dg-lsp#start"),
  };
}

async function showMenu(contributed: readonly Contributed[]): Promise<void> {
  const entries = contributed.map(({ icon, title, command }) => ({ label: `${icon} ${title}`, command }));
  const entry = await vscode.window.showQuickPick(entries, { placeHolder: "dg-lsp" });
  if (entry) {
    await run(entry.command);
  }
}

/** Turns completions over in the language, or in the workspace folder, of the active document. */
function toggle(scope: "language" | "workspace"): Thenable<unknown> {
  const document = vscode.window.activeTextEditor?.document;
  return run("dgLsp.toggle", scope, document?.uri.toString() ?? "", document?.languageId ?? "");
}

async function selectModel(): Promise<void> {
  const settings = vscode.workspace.getConfiguration("dgLsp.engine");
  const prompt = "A name that `dg-lsp pull` knows, or a model directory";
  const model = await vscode.window.showInputBox({ prompt, value: settings.get("model", "") });
  if (model) {
    await settings.update("model", model, true);
    await run("dgLsp.chooseModel", model);
  }
}

async function showStatistics(): Promise<void> {
  const { html } = await run<{ html: string }>("dgLsp.showStatistics");
  const panel = vscode.window.createWebviewPanel("dgLsp.statistics", "dg-lsp", vscode.ViewColumn.Active);
  panel.webview.html = html;
}
