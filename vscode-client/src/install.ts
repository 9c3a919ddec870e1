/** HOW the server is put into a virtual environment of its own. Knows no editor. */

import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";
import { inVenv } from "./places";

/**
 * Makes the environment, installs the server (`requirement` is what pip takes) and fetches its model.
 * Rejects with the last error that was printed; if it ends early, the environment is removed.
 */
export async function install(
  { python, venv, requirement }: { python: string; venv: string; requirement: string },
  report: (title: string) => void,
  log: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const pip = ["-m", "pip", "install", "--disable-pip-version-check", requirement];
  const steps: [title: string, program: string, args: string[]][] = [
    ["making a virtual environment", python, ["-m", "venv", "--clear", venv]],
    ["installing the server and the engine", inVenv(venv, "python"), pip],
    ["fetching the model", inVenv(venv, "dg-lsp"), ["pull"]],
  ];
  for (const [title, program, args] of steps) {
    report(title);
    const running = promisify(execFile)(program, args, { signal, maxBuffer: Infinity });
    running.child.stdout?.on("data", log);
    running.child.stderr?.on("data", log);
    await running.catch(async (error: unknown) => {
      await rm(venv, { recursive: true, force: true });
      const lines = String(error).split(/\r?\n/);
      throw new Error(`${title}: ${lines.findLast((line) => /error/i.test(line)) ?? ""}`);
    });
  }
}
