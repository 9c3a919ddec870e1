import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";

interface Manifest {
  capabilities: { untrustedWorkspaces: { restrictedConfigurations: string[] } };
}

const text = readFileSync("package.json", "utf8");

test("package.json has the settings of the server's schema (else: npm run settings)", () => {
  const generated = execFileSync(process.execPath, ["scripts/manifest.mjs", "--print"], { encoding: "utf8" });
  assert.equal(text, generated);
});

test("a workspace that is not trusted sets neither the server nor the engine", () => {
  const restricted = (JSON.parse(text) as Manifest).capabilities.untrustedWorkspaces.restrictedConfigurations;
  for (const name of ["server.path", "server.python", "server.package", "engine.url", "engine.model", "excludedFiles"]) {
    assert.ok(restricted.includes(`dgLsp.${name}`), name);
  }
});
