/** Bundles the extension into dist/, or `test` or `e2e` into out/. */

import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const [what = "extension"] = process.argv.slice(2);
const common = { bundle: true, platform: "node", target: "node20", logLevel: "warning" };

if (what === "extension") {
  await build({
    ...common,
    entryPoints: ["src/extension.ts"],
    outfile: "dist/extension.js",
    format: "cjs",
    external: ["vscode"],
    minify: true,
  });
} else {
  rmSync(`out/${what}`, { recursive: true, force: true });
  await build({
    ...common,
    entryPoints: readdirSync(what)
      .filter((name) => name.endsWith(".test.ts"))
      .map((name) => `${what}/${name}`),
    outdir: `out/${what}`,
    outExtension: { ".js": ".mjs" },
    format: "esm",
    packages: "external",
  });
}
