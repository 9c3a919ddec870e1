import assert from "node:assert/strict";
import { chmod, mkdtemp, readFile, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { test } from "node:test";
import { install } from "../src/install";

/** A "python" whose environment's own python runs `pip`, and whose dg-lsp notes what it is told. */
async function scripted(pip: string): Promise<{ python: string; venv: string; calls: () => Promise<string> }> {
  const directory = await mkdtemp(path.join(tmpdir(), "install-"));
  const calls = path.join(directory, "calls");
  const python = path.join(directory, "python3");
  const venv = path.join(directory, "venv");
  await writeFile(
    python,
    `#!/bin/sh
mkdir -p '${venv}/bin'
printf '#!/bin/sh\\necho "$*" >> ${calls}\\n${pip}\\n' > '${venv}/bin/python'
printf '#!/bin/sh\\necho "dg-lsp $*" >> ${calls}\\n' > '${venv}/bin/dg-lsp'
chmod +x '${venv}/bin/python' '${venv}/bin/dg-lsp'
`,
  );
  await chmod(python, 0o755);
  return { python, venv, calls: () => readFile(calls, "utf8") };
}

const ignore = (): void => undefined;
const exists = (file: string): Promise<boolean> => stat(file).then(() => true, () => false);

test("makes an environment, installs what is named and fetches the model", async () => {
  const { python, venv, calls } = await scripted("true");
  const titles: string[] = [];
  const never = new AbortController().signal;
  await install({ python, venv, requirement: "some.whl" }, (title) => titles.push(title), ignore, never);
  assert.match(await calls(), /^-m pip install .*some\.whl\ndg-lsp pull\n$/);
  assert.equal(titles.length, 3);
});

test("offline, the error is pip's own and no half environment stays", async () => {
  const { python, venv } = await scripted('echo "ERROR: No matching distribution found" >&2; exit 1');
  const never = new AbortController().signal;
  await assert.rejects(install({ python, venv, requirement: "dg-lsp" }, ignore, ignore, never), {
    message: "installing the server and the engine: ERROR: No matching distribution found",
  });
  assert.equal(await exists(venv), false);
});

test("without Python the error names it", async () => {
  const { venv } = await scripted("true");
  const never = new AbortController().signal;
  await assert.rejects(install({ python: "/no/python", venv, requirement: "x" }, ignore, ignore, never), /\/no\/python/);
});

test("a cancelled installation ends its process and leaves nothing", async () => {
  const { python, venv, calls } = await scripted("exec sleep 60");
  const abort = new AbortController();
  const installing = install({ python, venv, requirement: "x" }, ignore, ignore, abort.signal);
  while (!(await calls().catch(() => ""))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  abort.abort();
  await assert.rejects(installing, /abort/i);
  assert.equal(await exists(venv), false);
});
