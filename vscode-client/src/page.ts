/** The local figures as a page: bars drawn in SVG, no scripts. Pure. */

/** What `dgLsp.showStatistics` answers under `figures`; shares are 0 to 1, null if unknown. */
export interface Figures {
  readonly since: number | null;
  readonly shown: number;
  readonly rejected: number;
  readonly accepted: Readonly<Record<"full" | "partial" | "typed", number>>;
  readonly acceptance: number | null;
  readonly completed_share: number | null;
  readonly retained_after_s: Readonly<Record<string, number | null>>;
  readonly latency_ms: Readonly<Record<"p50" | "p95", number | null>>;
}

type Bar = readonly [name: string, value: number | null];

/** A whole HTML page. */
export function page(figures: Figures, path: string): string {
  const { accepted, latency_ms: latency } = figures;
  const percent = (value: number): string => `${Math.round(100 * value)} %`;
  const body = figures.since
    ? [
        `<p>Since ${new Date(1000 * figures.since).toISOString().slice(0, 10)}.</p>`,
        chart("Completions", String, [
          ["shown", figures.shown],
          ["accepted whole", accepted.full],
          ["accepted in part", accepted.partial],
          ["typed as shown", accepted.typed],
          ["rejected", figures.rejected],
        ]),
        chart("Share", percent, [
          ["of what was shown, accepted", figures.acceptance],
          ["of what was written, completed", figures.completed_share],
        ], 1),
        chart("Of what was accepted, still there", percent,
          Object.entries(figures.retained_after_s).map(([s, share]): Bar => [`after ${s} s`, share]), 1),
        chart("Wait for an answer", (ms) => `${Math.round(ms)} ms`, [
          ["half of them within", latency.p50],
          ["95 % within", latency.p95],
        ]),
      ].join("\n")
    : "<p>No figures yet: they appear with the first completions.</p>";
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
  svg { display: block; max-width: 44em; font: 13px var(--vscode-font-family); }
  text { fill: var(--vscode-foreground); } rect { fill: var(--vscode-charts-blue); }
  code { color: var(--vscode-descriptionForeground); }
</style><title>dg-lsp</title></head>
<body><h1>Completions on this machine</h1>
${body}
<p><code>${escaped(path)}</code> never leaves this machine; <code>dg-lsp stats --delete</code> deletes it.</p>
</body></html>`;
}

/** Horizontal bars; `most` is the length of a full one, by default the greatest value. */
function chart(title: string, show: (value: number) => string, bars: readonly Bar[], most?: number): string {
  const full = most ?? Math.max(1, ...bars.map(([, value]) => value ?? 0));
  const rows = bars.map(([name, value], row) => {
    const y = 24 * row;
    const width = Math.round((260 * (value ?? 0)) / full);
    return `<text x="210" y="${y + 16}" text-anchor="end">${escaped(name)}</text>
<rect x="220" y="${y + 3}" width="${width}" height="17" rx="2"/>
<text x="${228 + width}" y="${y + 16}">${value === null ? "–" : show(value)}</text>`;
  });
  return `<h2>${escaped(title)}</h2>
<svg viewBox="0 0 600 ${Math.max(1, 24 * bars.length)}" role="img">${rows.join("\n")}</svg>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
