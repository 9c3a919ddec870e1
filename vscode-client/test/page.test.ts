import assert from "node:assert/strict";
import { test } from "node:test";
import { page, type Figures } from "../src/page";

const FIGURES: Figures = {
  since: 1_700_000_000,
  shown: 200,
  rejected: 20,
  accepted: { full: 50, partial: 0, typed: 5 },
  acceptance: 0.25,
  completed_share: null,
  retained_after_s: { "15": 0.9 },
  latency_ms: { p50: 120, p95: 480 },
};

test("bars are as long as their values, the greatest a full one", () => {
  const html = page(FIGURES, "/f");
  const width = (name: string): number => Number(new RegExp(`${name}</text>\\s*<rect[^>]*width="(\\d+)"`).exec(html)?.[1]);
  assert.equal(width("shown"), 260);
  assert.equal(width("accepted whole"), 65);
  assert.equal(width("accepted in part"), 0);
  assert.equal(width("of what was shown, accepted"), 65);
  assert.equal(width("95 % within"), 260);
  assert.equal(width("half of them within"), 65);
});

test("figures stand beside their bars, a dash where nothing is known", () => {
  const html = page(FIGURES, "/f");
  for (const shown of [">200<", ">25 %<", ">–<", ">after 15 s<", ">90 %<", ">120 ms<", "2023-11-14"]) {
    assert.ok(html.includes(shown), shown);
  }
});

test("without figures the page says so", () => {
  assert.match(page({ ...FIGURES, since: null }, "/f"), /No figures yet/);
});

test("a path cannot become markup, and no script runs", () => {
  const html = page(FIGURES, "/<script>&\"");
  assert.ok(!html.includes("<script"));
  assert.match(html, /default-src 'none'/);
});
