/** Other extensions that show ghost text: of several answers, VS Code shows the first that comes. */

import * as vscode from "vscode";

const RIVALS = new Set([
  "amazonwebservices.amazon-q-vscode",
  "augment.vscode-augment",
  "codeium.codeium",
  "continue.continue",
  "ggml-org.llama-vscode",
  "github.copilot",
  "github.copilot-chat",
  "google.geminicodeassist",
  "supermaven.supermaven",
  "tabbyml.vscode-tabby",
  "tabnine.tabnine-vscode",
  "visualstudioexptteam.intellicode-completions",
]);

/** One that is enabled here, if any is. */
export function findRival(): vscode.Extension<unknown> | undefined {
  return vscode.extensions.all.find(({ id }) => RIVALS.has(id.toLowerCase()));
}

/** Says once per user that there is another one, and offers to give way. */
export async function warnOfRivals(memory: vscode.Memento): Promise<void> {
  const rival = findRival();
  if (!rival || memory.get("warnedOfRivals")) {
    return;
  }
  await memory.update("warnedOfRivals", true);
  const name = (rival.packageJSON as { displayName?: string }).displayName ?? rival.id;
  const giveWay = "Only When I Ask";
  const choice = await vscode.window.showInformationMessage(
    `dg-lsp: ${name} shows ghost text too, and what comes first is seen. ` +
      "dg-lsp can answer only when you ask for it.",
    giveWay,
    "Keep Both",
  );
  if (choice === giveWay) {
    await vscode.workspace.getConfiguration("dgLsp").update("yieldToOthers", true, true);
  }
}
