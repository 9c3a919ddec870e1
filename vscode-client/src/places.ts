/** WHERE the server may be installed, in the order in which it is looked for. Pure; knows no editor. */

import * as path from "node:path";

/** What decides where to look. `folders` is empty where the workspace is not trusted. */
export interface Surroundings {
  readonly setting: string;
  readonly folders: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly privateVenv: string;
  readonly windows: boolean;
}

/** All places of the executable, the best first; a setting that names one is the only place. */
export function places({ setting, folders, env, home, privateVenv, windows }: Surroundings): string[] {
  if (setting) {
    return [setting.replace(/^~(?=[/\\])/, home)];
  }
  const venvs = folders.flatMap((folder) => [path.join(folder, ".venv"), path.join(folder, "venv")]);
  const onPath = (env["PATH"] ?? "").split(path.delimiter);
  const tools = [env["UV_TOOL_BIN_DIR"], env["PIPX_BIN_DIR"], env["XDG_BIN_HOME"], path.join(home, ".local/bin")];
  return [
    ...venvs.map((venv) => inVenv(venv, "dg-lsp", windows)),
    ...[...onPath, ...tools]
      .filter((directory): directory is string => directory !== undefined && path.isAbsolute(directory))
      .map((directory) => path.join(directory, windows ? "dg-lsp.exe" : "dg-lsp")),
    inVenv(privateVenv, "dg-lsp", windows),
  ];
}

/** A program of a virtual environment. */
export function inVenv(venv: string, name: string, windows = process.platform === "win32"): string {
  return windows ? path.join(venv, "Scripts", `${name}.exe`) : path.join(venv, "bin", name);
}
