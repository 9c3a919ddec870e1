/** HOW the server is put into a virtual environment of its own. Knows no editor. */

import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { inVenv } from "./places";

const WINDOWS = process.platform === "win32";

/** One step: what is said while it runs, and its command. */
interface Step {
  readonly title: string;
  readonly command: readonly [string, ...string[]];
}

/** What to install and where to. */
export interface Installation {
  readonly python: string;
  readonly venv: string;
  readonly requirement: string;
}

/**
 * Makes the environment, installs the server and fetches its model; returns the executable.
 * Rejects with the last line of what failed; whatever way it ends early, the environment is removed.
 */
export async function install(
  { python, venv, requirement }: Installation,
  report: (title: string) => void,
  log: (text: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const executable = inVenv(venv, WINDOWS ? "dg-lsp.exe" : "dg-lsp", WINDOWS);
  const venvPython = inVenv(venv, WINDOWS ? "python.exe" : "python", WINDOWS);
  const pip = [venvPython, "-m", "pip", "install", "--disable-pip-version-check"] as const;
  const steps: Step[] = [
    { title: "making a virtual environment", command: [python, "-m", "venv", "--clear", venv] },
    { title: "installing the server and the engine", command: [...pip, requirement] },
    { title: "fetching the model", command: [executable, "pull"] },
  ];
  try {
    for (const step of steps) {
      report(step.title);
      await run(step, log, signal);
    }
  } catch (error) {
    await rm(venv, { recursive: true, force: true });
    throw error;
  }
  return executable;
}

function run({ title, command }: Step, log: (text: string) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const [program, ...args] = command;
    const child = spawn(program, args, { signal, stdio: ["ignore", "pipe", "pipe"] });
    let last = "";
    const hear = (data: Buffer): void => {
      const lines = data.toString().split(/\r?\n/).filter(Boolean);
      last = lines.findLast((line) => /error/i.test(line)) ?? last;
      lines.forEach(log);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.on("error", (error) => reject(new Error(`${title}: ${error.message}`)));
    child.on("close", (code) =>
      code === 0 ? resolve() : reject(new Error(`${title} failed: ${last || `code ${code}`}`)),
    );
  });
}
