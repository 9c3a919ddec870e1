import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { NOT_HERE, serverSettings } from "../src/settings";

interface Manifest {
  contributes: { configuration: { properties: Record<string, { scope: string }> } };
  capabilities: { untrustedWorkspaces: { restrictedConfigurations: string[] } };
}

const text = readFileSync("package.json", "utf8");
const manifest = JSON.parse(text) as Manifest;

test("package.json has the settings of the server's schema (else: npm run settings)", () => {
  const generated = execFileSync(process.execPath, ["scripts/manifest.mjs", "--print"], { encoding: "utf8" });
  assert.equal(text, generated);
});

test("the server is told what its schema names, and nothing that is the client's alone", () => {
  const asked: string[] = [];
  const sent = serverSettings((name) => {
    asked.push(name);
    return name === "deadlineMs" ? null : name;
  });
  assert.equal((sent["engine"] as Record<string, unknown>)["model"], "engine.model");
  assert.equal(sent["maxTokens"], "maxTokens");
  assert.ok(!("deadlineMs" in sent), "null is no value");
  const own = ["server.path", "server.package", "server.python", "yieldToOthers", "trace.server"];
  const contributed = Object.keys(manifest.contributes.configuration.properties);
  assert.deepEqual([...asked, ...own].map((name) => `dgLsp.${name}`), contributed);
  assert.ok(!asked.some((name) => NOT_HERE.includes(name)));
});

test("a workspace that is not trusted sets neither the server nor the engine", () => {
  const restricted = manifest.capabilities.untrustedWorkspaces.restrictedConfigurations;
  for (const name of ["server.path", "server.python", "server.package", "engine.url", "engine.model", "excludedFiles"]) {
    assert.ok(restricted.includes(`dgLsp.${name}`), name);
  }
});
