import assert from "node:assert/strict";
import { test } from "node:test";
import { places, type Surroundings } from "../src/places";

const WHERE: Surroundings = {
  setting: "",
  folders: ["/project"],
  env: { PATH: "/usr/bin:relative:/opt/bin" },
  home: "/home/me",
  privateVenv: "/storage/server",
  windows: false,
};

test("the workspace's environment comes before PATH, PATH before tools, our own environment last", () => {
  assert.deepEqual(places(WHERE), [
    "/project/.venv/bin/dg-lsp",
    "/project/venv/bin/dg-lsp",
    "/usr/bin/dg-lsp",
    "/opt/bin/dg-lsp",
    "/home/me/.local/bin/dg-lsp",
    "/storage/server/bin/dg-lsp",
  ]);
});

test("a path that is set is the only one, and may begin at home", () => {
  assert.deepEqual(places({ ...WHERE, setting: "/mine/dg-lsp" }), ["/mine/dg-lsp"]);
  assert.deepEqual(places({ ...WHERE, setting: "~/bin/dg-lsp" }), ["/home/me/bin/dg-lsp"]);
});

test("nothing in the workspace is looked at where it offers no folders", () => {
  assert.ok(!places({ ...WHERE, folders: [] }).some((place) => place.startsWith("/project")));
});

test("uv's and pipx's directories may be named by the environment", () => {
  const env = { UV_TOOL_BIN_DIR: "/uv/bin", PIPX_BIN_DIR: "/pipx/bin", XDG_BIN_HOME: "/xdg/bin" };
  const found = places({ ...WHERE, folders: [], env });
  assert.deepEqual(found.slice(0, 3), ["/uv/bin/dg-lsp", "/pipx/bin/dg-lsp", "/xdg/bin/dg-lsp"]);
});

test("on Windows executables lie in Scripts", () => {
  assert.match(places({ ...WHERE, windows: true })[0] ?? "", /Scripts.dg-lsp\.exe$/);
});
