/** The status bar item; how states are worded is in `state`. */

import * as vscode from "vscode";
import { describe, type Status } from "./state";

/** Makes the item, whose click opens the menu; what is returned shows a status there. */
export function createStatusItem(): (status: Status) => void {
  const item = vscode.window.createStatusBarItem("dgLsp", vscode.StatusBarAlignment.Right);
  const red = new vscode.ThemeColor("statusBarItem.errorBackground");
  item.name = "dg-lsp";
  item.command = "dgLsp.menu";
  item.show();
  return (status) => {
    const { text, tooltip } = describe(status);
    item.text = text;
    item.tooltip = tooltip;
    item.accessibilityInformation = { label: tooltip };
    item.backgroundColor = status.state === "failed" ? red : undefined;
  };
}
