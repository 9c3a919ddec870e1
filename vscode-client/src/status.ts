/** The status bar item; how states are worded is in `state`. */

import * as vscode from "vscode";
import { describe, type Status } from "./state";

const RED = new vscode.ThemeColor("statusBarItem.errorBackground");

/** Shows the newest status and what is going on; a click opens the menu. */
export class StatusItem implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("dgLsp", vscode.StatusBarAlignment.Right);
  private status: Status = { state: "stopped", message: "", progress: 0 };
  private requests = 0; // that wait for an answer
  private lastMs: number | undefined;

  constructor() {
    this.item.name = "dg-lsp";
    this.item.command = "dgLsp.menu";
    this.item.show();
  }

  show(state: string, message: string, progress = 0): void {
    this.status = { state, message, progress };
    this.draw();
  }

  /** Does what answers a request, and shows that it runs and how long it took. */
  async timed<T>(answer: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    this.requests += 1;
    this.draw();
    try {
      return await answer();
    } finally {
      this.requests -= 1;
      this.lastMs = performance.now() - begun;
      this.draw();
    }
  }

  dispose(): void {
    this.item.dispose();
  }

  private draw(): void {
    const { text, tooltip } = describe(this.status, this.requests, this.lastMs);
    this.item.text = text;
    this.item.tooltip = tooltip;
    this.item.accessibilityInformation = { label: tooltip };
    this.item.backgroundColor = this.status.state === "failed" ? RED : undefined;
  }
}
