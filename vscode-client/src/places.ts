/** WHERE the server may be installed, in the order in which it is looked for. Knows no editor. */

import { homedir } from "node:os";
import * as path from "node:path";

/**
 * All places of the executable, the best first; a setting that names one is the only place.
 * `folders` are those of a trusted workspace, `own` is the environment that this extension makes.
 */
export function places(setting: string, folders: readonly string[], own: string): string[] {
  if (setting) {
    return [setting.replace(/^~(?=[/\\])/, homedir())];
  }
  const { PATH = "", UV_TOOL_BIN_DIR = "", PIPX_BIN_DIR = "", XDG_BIN_HOME = "" } = process.env;
  const tools = [UV_TOOL_BIN_DIR, PIPX_BIN_DIR, XDG_BIN_HOME, path.join(homedir(), ".local/bin")];
  const directories = [...PATH.split(path.delimiter), ...tools].filter((place) => path.isAbsolute(place));
  const name = process.platform === "win32" ? "dg-lsp.exe" : "dg-lsp";
  return [
    ...folders.flatMap((folder) => [".venv", "venv"].map((venv) => inVenv(path.join(folder, venv), "dg-lsp"))),
    ...directories.map((directory) => path.join(directory, name)),
    inVenv(own, "dg-lsp"),
  ];
}

/** A program of a virtual environment. */
export function inVenv(venv: string, name: string): string {
  return process.platform === "win32" ? path.join(venv, "Scripts", `${name}.exe`) : path.join(venv, "bin", name);
}
