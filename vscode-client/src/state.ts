/** HOW the state of server and engine is put into words. Pure. */

/** `dg/status`: what is happening, or why nothing is shown; `progress` is 0 to 1. */
export interface Status {
  readonly state: string;
  readonly message: string;
  readonly progress?: number;
}

const ICONS: Readonly<Record<string, string>> = {
  starting: "loading~spin",
  loading: "loading~spin",
  ready: "sparkle",
  thinking: "sync~spin",
  stopped: "circle-outline",
  failed: "error",
  disabled: "circle-slash",
  snoozed: "debug-pause",
  excluded: "eye-closed",
};

/** A status bar item's text, for a glance, and its tooltip. */
export function describe({ state, message, progress = 0 }: Status): { text: string; tooltip: string } {
  const percent = state === "loading" ? ` ${Math.round(100 * progress)} %` : "";
  return {
    text: `$(${ICONS[state] ?? "question"}) dg-lsp${percent}`,
    tooltip: `dg-lsp: ${message ? `${state}: ${message}` : state}`,
  };
}
