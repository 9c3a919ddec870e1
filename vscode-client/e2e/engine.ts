/** The scripted engine of the Python tests: it answers with what stands behind `# say ` in the file. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import * as path from "node:path";
import { PYTHON, ROOT, until } from "./code";

/** Starts it with its runtime files in `directory`; returns how to end it. See there what `model` does. */
export async function startEngine(directory: string, model = "scripted", env = {}): Promise<() => void> {
  const script = path.join(ROOT, "tests/scripted_engine.py");
  const child = spawn(PYTHON, ["-P", script, "--runtime-dir", directory, "--model", model], {
    env: { ...process.env, PYTHONPATH: ROOT, ...env },
    stdio: "ignore",
  });
  await until(() => existsSync(path.join(directory, "engine.json")), () => "the engine does not start");
  return () => child.kill("SIGKILL");
}
