/** The view with the local figures; what it looks like is in `page`. */

import * as vscode from "vscode";
import { page, type Figures } from "./page";
import type { Server } from "./server";

/** Asks the server for the figures and shows them beside the code. */
export async function showStatistics(server: Server): Promise<void> {
  const answer = (await server.execute("dgLsp.showStatistics")) as { figures: Figures; path: string };
  const panel = vscode.window.createWebviewPanel("dgLspStatistics", "dg-lsp", vscode.ViewColumn.Active);
  panel.webview.html = page(answer.figures, answer.path);
}
