/** The scripted engine of the Python tests: it answers with what stands behind `# say ` in the file. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import * as path from "node:path";
import { PYTHON, ROOT, until } from "./code";

/** Starts it with its runtime files in `directory`; returns how to end it. */
export async function startEngine(directory: string): Promise<() => void> {
  const script = path.join(ROOT, "tests/scripted_engine.py");
  const child = spawn(PYTHON, ["-P", script, "--runtime-dir", directory, "--model", "scripted"], {
    env: { ...process.env, PYTHONPATH: ROOT },
    stdio: "ignore",
  });
  await until(() => existsSync(path.join(directory, "engine.json")), () => "the engine does not start");
  return () => child.kill("SIGKILL");
}
