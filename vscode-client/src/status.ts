/** The status bar item; how states are worded is in `state`. */

import * as vscode from "vscode";
import { describe, type Status } from "./state";

const COLORS = {
  none: undefined,
  error: new vscode.ThemeColor("statusBarItem.errorBackground"),
};

/** Shows the newest status and what is going on; a click opens the menu. */
export class StatusItem implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("dgLsp", vscode.StatusBarAlignment.Right);
  private status: Status = { state: "starting", message: "", progress: 0 };
  private running = 0;
  private lastMs: number | undefined;

  constructor() {
    this.item.name = "dg-lsp";
    this.item.command = "dgLsp.menu";
    this.draw();
    this.item.show();
  }

  /** Takes over a status. */
  show(status: Status): void {
    this.status = status;
    this.draw();
  }

  /** Does what answers a request, and shows that it runs and how long it took. */
  async timed<T>(answer: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    this.running += 1;
    this.draw();
    try {
      return await answer();
    } finally {
      this.running -= 1;
      this.lastMs = performance.now() - begun;
      this.draw();
    }
  }

  dispose(): void {
    this.item.dispose();
  }

  private draw(): void {
    const settings = vscode.workspace.getConfiguration("dgLsp");
    const { text, tooltip, severity } = describe(this.status, {
      model: settings.get<string>("engine.model", ""),
      device: settings.get<string>("engine.device", ""),
      running: this.running,
      lastMs: this.lastMs,
    });
    this.item.text = text;
    this.item.tooltip = tooltip;
    this.item.accessibilityInformation = { label: tooltip };
    this.item.backgroundColor = COLORS[severity];
  }
}
