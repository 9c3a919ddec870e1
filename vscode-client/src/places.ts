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
export function places(where: Surroundings): string[] {
  const { env, home, windows } = where;
  const name = windows ? "dg-lsp.exe" : "dg-lsp";
  if (where.setting) {
    return [where.setting.replace(/^~(?=[/\\])/, home)];
  }
  const data = env["XDG_DATA_HOME"] || path.join(home, ".local/share");
  const venvs = where.folders
    .flatMap((folder) => [path.join(folder, ".venv"), path.join(folder, "venv")])
    .map((venv) => inVenv(venv, name, windows));
  const onPath = (env["PATH"] ?? "").split(path.delimiter).filter((directory) => path.isAbsolute(directory));
  const tools = [
    env["UV_TOOL_BIN_DIR"],
    env["PIPX_BIN_DIR"],
    env["XDG_BIN_HOME"],
    path.join(home, ".local/bin"),
  ].filter((directory) => directory !== undefined);
  const toolVenvs = [
    path.join(env["UV_TOOL_DIR"] || path.join(data, "uv/tools"), "dg-lsp"),
    path.join(env["PIPX_HOME"] || path.join(data, "pipx"), "venvs/dg-lsp"),
    path.join(home, ".local/pipx/venvs/dg-lsp"),
    where.privateVenv,
  ].map((venv) => inVenv(venv, name, windows));
  return [
    ...venvs,
    ...[...onPath, ...tools].map((directory) => path.join(directory, name)),
    ...toolVenvs,
  ];
}

/** An executable of a virtual environment. */
export function inVenv(venv: string, name: string, windows: boolean): string {
  return path.join(venv, windows ? "Scripts" : "bin", name);
}
