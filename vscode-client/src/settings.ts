/**
 * WHAT of the settings the server is told: all that its schema names, as VS Code has merged them.
 * VS Code keeps a workspace that is not trusted from setting what the manifest restricts.
 */

import schema from "../../dg_lsp/settings.schema.json";

/** The value of a setting by its dotted name below `dgLsp`. */
export type Read = (name: string) => unknown;

interface Property {
  readonly description: string;
  readonly properties?: Readonly<Record<string, Property>>;
}

/** Settings of the server that mean nothing here: VS Code has ghost text, and keeps trust itself. */
export const NOT_HERE: readonly string[] = ["completionMenu", "trusted"];

/** The object the server takes; null and what is not set are left out. */
export function serverSettings(read: Read): Record<string, unknown> {
  return collect(schema.properties, "", read);
}

function collect(
  properties: Readonly<Record<string, Property>>,
  prefix: string,
  read: Read,
): Record<string, unknown> {
  const entries = Object.entries(properties)
    .filter(([key]) => !NOT_HERE.includes(prefix + key))
    .map(([key, { properties: inner }]): [string, unknown] => [
      key,
      inner ? collect(inner, `${prefix}${key}.`, read) : read(prefix + key),
    ]);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null));
}
