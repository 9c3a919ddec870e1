/** HOW the state is put into words: of the server, of the engine, of what is going on. Pure. */

/** `dg/status`: what is happening, or why nothing is shown; `progress` is 0 to 1. */
export interface Status {
  readonly state: string;
  readonly message: string;
  readonly progress: number;
}

/** What is known beside the server's status. */
export interface Activity {
  readonly model: string;
  readonly device: string;
  readonly running: number; // requests that wait for an answer
  readonly lastMs?: number; // what the last answer took
}

/** A status bar item. */
export interface Shown {
  readonly text: string;
  readonly tooltip: string;
  readonly severity: "none" | "error";
}

const ICONS: Readonly<Record<string, string>> = {
  starting: "loading~spin",
  loading: "loading~spin",
  ready: "sparkle",
  stopped: "circle-outline",
  failed: "error",
  disabled: "circle-slash",
  snoozed: "debug-pause",
  excluded: "eye-closed",
};

/** The item for a status: its icon, what is worth a glance, and the rest as its tooltip. */
export function describe(status: Status, activity: Activity): Shown {
  const { state, message, progress } = status;
  const thinking = state === "ready" && activity.running > 0;
  const icon = thinking ? "sync~spin" : (ICONS[state] ?? "question");
  const percent = state === "loading" && progress > 0 ? ` ${Math.round(100 * progress)} %` : "";
  return {
    text: `$(${icon}) dg-lsp${percent}`,
    tooltip: `dg-lsp: ${sentence(thinking ? "thinking" : state, message, activity)}`,
    severity: state === "failed" ? "error" : "none",
  };
}

function sentence(state: string, message: string, activity: Activity): string {
  if (message || state !== "ready") {
    return message ? `${state}: ${message}` : state;
  }
  const last = activity.lastMs === undefined ? [] : [`last answer ${Math.round(activity.lastMs)} ms`];
  return ["ready", activity.model, activity.device, ...last].join(" · ");
}
