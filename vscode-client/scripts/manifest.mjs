/**
 * Writes into package.json what is generated: the settings, from the server's schema and from those
 * of this extension alone, and which of them a workspace that is not trusted may not set.
 * `npm run settings` writes it; a unit test holds that nothing is left to write (`--print`).
 */

import { readFileSync, writeFileSync } from "node:fs";

const MANIFEST = new URL("../package.json", import.meta.url);
const SCHEMA = new URL("../../dg_lsp/settings.schema.json", import.meta.url);

/** Settings of the server that mean nothing here: VS Code has ghost text, and keeps trust itself. */
const NOT_HERE = ["completionMenu", "trusted"];

const OWN = {
  "server.path": {
    description:
      "the server's executable; if empty it is looked for in the workspace's virtual environment, in PATH, where uv and pipx put tools, and in the extension's own environment",
    scope: "machine",
    type: "string",
    default: "",
  },
  "server.package": {
    description: "what pip installs as the server: a name, a wheel or a directory",
    scope: "machine",
    type: "string",
    default: "dg-lsp[engine]",
  },
  "server.python": {
    description: "the Python (3.11 or newer) that makes the server's environment",
    scope: "machine",
    type: "string",
    default: "python3",
  },
  yieldToOthers: {
    description:
      "whether to answer only when asked by hand while another extension that shows ghost text is enabled",
    scope: "resource",
    type: "boolean",
    default: false,
  },
  "trace.server": {
    description:
      "which messages between editor and server are logged, where the log's level is Trace; they hold source text",
    scope: "resource",
    type: "string",
    enum: ["off", "messages", "verbose"],
    default: "off",
  },
};

/** package.json as text, with the generated parts written anew. */
function manifest() {
  const contents = JSON.parse(readFileSync(MANIFEST, "utf8"));
  const schema = JSON.parse(readFileSync(SCHEMA, "utf8"));
  const properties = [...leaves(schema.properties, ""), ...Object.entries(OWN)];
  contents.contributes.configuration = {
    title: "dg-lsp",
    properties: Object.fromEntries(
      properties.map(([name, property], order) => [`dgLsp.${name}`, setting(property, order)]),
    ),
  };
  contents.capabilities.untrustedWorkspaces = {
    supported: "limited",
    description: "Such a workspace does not choose the server, the engine or what is logged.",
    restrictedConfigurations: properties
      .filter(([, { scope }]) => scope === "machine")
      .map(([name]) => `dgLsp.${name}`),
  };
  return `${JSON.stringify(contents, null, 2)}\n`;
}

function leaves(properties, prefix) {
  return Object.entries(properties).flatMap(([key, property]) => {
    if (NOT_HERE.includes(prefix + key)) {
      return [];
    }
    return property.properties
      ? leaves(property.properties, `${prefix}${key}.`)
      : [[prefix + key, property]];
  });
}

/** One server serves all folders of a window, so no setting is a single folder's. */
function setting({ description, scope, ...rest }, order) {
  return {
    order,
    markdownDescription: `${description[0].toUpperCase()}${description.slice(1)}.`,
    scope: scope === "machine" ? "machine-overridable" : "window",
    ...rest,
  };
}

if (process.argv.includes("--print")) {
  process.stdout.write(manifest());
} else {
  writeFileSync(MANIFEST, manifest());
}
