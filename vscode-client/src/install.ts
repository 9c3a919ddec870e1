/** HOW the server is put into a virtual environment of its own. Knows no editor. */

import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { inVenv } from "./places";

/** What to install and where to: `requirement` is what pip takes, a name, a wheel or a directory. */
export interface Installation {
  readonly python: string;
  readonly venv: string;
  readonly requirement: string;
}

/**
 * Makes the environment, installs the server and fetches its model.
 * Rejects with the last error that was printed; if it ends early, the environment is removed.
 */
export async function install(
  { python, venv, requirement }: Installation,
  report: (title: string) => void,
  log: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const pip = ["-m", "pip", "install", "--disable-pip-version-check"];
  const steps: [title: string, program: string, args: string[]][] = [
    ["making a virtual environment", python, ["-m", "venv", "--clear", venv]],
    ["installing the server and the engine", inVenv(venv, "python"), [...pip, requirement]],
    ["fetching the model", inVenv(venv, "dg-lsp"), ["pull"]],
  ];
  try {
    for (const [title, program, args] of steps) {
      report(title);
      await run(program, args, log, signal).catch((error: unknown) => {
        throw new Error(`${title}: ${(error as Error).message}`);
      });
    }
  } catch (error) {
    await rm(venv, { recursive: true, force: true });
    throw error;
  }
}

function run(program: string, args: string[], log: (text: string) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { signal, stdio: ["ignore", "pipe", "pipe"] });
    let failure = "";
    const hear = (data: Buffer): void => {
      const lines = data.toString().split(/\r?\n/).filter(Boolean);
      failure = lines.findLast((line) => /error/i.test(line)) ?? failure;
      lines.forEach(log);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.on("error", reject);
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(failure || `it ended with ${code}`))));
  });
}
