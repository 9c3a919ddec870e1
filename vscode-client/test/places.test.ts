import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { places } from "../src/places";

const { platform } = process;
const TOOLS = ["UV_TOOL_BIN_DIR", "PIPX_BIN_DIR", "XDG_BIN_HOME"];

beforeEach(() => {
  Object.assign(process.env, { PATH: "/usr/bin:relative:/opt/bin", HOME: "/home/me" });
  TOOLS.forEach((name) => Reflect.deleteProperty(process.env, name));
  Object.defineProperty(process, "platform", { value: platform });
});

test("the workspace's environment comes before PATH, PATH before tools, our own environment last", () => {
  assert.deepEqual(places("", ["/project"], "/storage/server"), [
    "/project/.venv/bin/dg-lsp",
    "/project/venv/bin/dg-lsp",
    "/usr/bin/dg-lsp",
    "/opt/bin/dg-lsp",
    "/home/me/.local/bin/dg-lsp",
    "/storage/server/bin/dg-lsp",
  ]);
});

test("a path that is set is the only one, and may begin at home", () => {
  assert.deepEqual(places("/mine/dg-lsp", ["/project"], "/storage"), ["/mine/dg-lsp"]);
  assert.deepEqual(places("~/bin/dg-lsp", ["/project"], "/storage"), ["/home/me/bin/dg-lsp"]);
});

test("nothing in the workspace is looked at where it offers no folders", () => {
  assert.ok(!places("", [], "/storage").some((place) => place.startsWith("/project")));
});

test("uv's and pipx's directories may be named by the environment", () => {
  Object.assign(process.env, { PATH: "", UV_TOOL_BIN_DIR: "/uv/bin", PIPX_BIN_DIR: "/pipx/bin", XDG_BIN_HOME: "/xdg/bin" });
  const found = places("", [], "/storage");
  assert.deepEqual(found.slice(0, 3), ["/uv/bin/dg-lsp", "/pipx/bin/dg-lsp", "/xdg/bin/dg-lsp"]);
});

test("on Windows executables lie in Scripts", () => {
  Object.defineProperty(process, "platform", { value: "win32" });
  assert.match(places("", ["/project"], "/storage")[0] ?? "", /Scripts.dg-lsp\.exe$/);
});
