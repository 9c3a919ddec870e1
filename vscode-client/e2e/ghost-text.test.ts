/** What a user sees and presses, each against exact answers of a scripted engine. */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import { appears, Code, GHOST, ROOT, until } from "./code";
import { startEngine } from "./engine";

const SAY = "# say alpha beta(gamma)\n\n";
const FULL = "x = alpha beta(gamma)";
const runtime = mkdtempSync(path.join(tmpdir(), "dg-"));
const statistics = path.join(runtime, "statistics");
let code: Code;
let endEngine: () => void;

before(async () => {
  endEngine = await startEngine(runtime);
  const env = { DG_LSP_RUNTIME_DIR: runtime, DG_LSP_STATISTICS: statistics, PYTHONPATH: ROOT };
  code = await Code.start({ settings: { "dgLsp.engine.model": "scripted", "dgLsp.engine.start": false }, env });
  await code.open("first.txt", "|\n");
  await code.untilStatus(/ready/);
});

after(async () => {
  await code.stop();
  endEngine();
  rmSync(runtime, { recursive: true, force: true });
});

/** Whether the server has written this among its figures. */
function noted(figure: string): boolean {
  return existsSync(statistics) && readFileSync(statistics, "utf8").includes(figure);
}

test("ghost text appears, Tab takes exactly it, one undo takes it back", async () => {
  await code.open("tab.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  await code.picture("scripted");
  await code.press("Tab");
  await code.untilSaved("tab.txt", `${SAY}${FULL}\n`);
  await until(() => noted('"how": "full"'));
  await code.press("Control+z");
  await code.untilSaved("tab.txt", `${SAY}x = \n`);
});

test("Ctrl+Right takes a word and leaves the rest to see", async () => {
  await code.open("word.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  await code.press("Control+ArrowRight");
  await code.untilGhost(" beta(gamma)");
  await code.untilSaved("word.txt", `${SAY}x = alpha\n`);
  await code.type("!"); // which ends what was shown
  await until(() => noted('"how": "partial"'));
});

test("Ctrl+Alt+Right takes a line", async () => {
  const say = "# say one\\n  two\n\n";
  await code.open("line.txt", `${say}|\n`);
  await code.type("x = ");
  await code.untilGhost(/^one/);
  await code.press("Control+Alt+ArrowRight");
  await code.untilSaved("line.txt", `${say}x = one\n\n`); // the line's end with it
});

test("further lines are indented as the editor indents", async () => {
  code.configure({ "editor.detectIndentation": false, "editor.insertSpaces": false });
  const say = "# say if:\\n    one\n\n";
  await code.open("tabs.txt", `${say}|\n`);
  await code.page.locator(".statusbar").getByText("Tab Size: 4").waitFor(); // the settings are there
  await code.type("x = ");
  await code.untilGhost(/^if:/);
  await code.press("Tab");
  await code.untilSaved("tabs.txt", `${say}x = if:\n\tone\n`);
  code.configure({});
});

test("typing what is shown never makes it flicker", async () => {
  await code.open("through.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  const frames = code.page.evaluate(async (selector) => {
    const seen: string[] = [];
    while (seen.at(-1) !== "ta(gamma)") {
      await new Promise(requestAnimationFrame);
      seen.push([...document.querySelectorAll(selector)].map((part) => part.textContent).join(""));
    }
    return seen;
  }, GHOST);
  await code.type("alpha be");
  assert.deepEqual((await frames).filter((text) => !text.endsWith("ta(gamma)")), []);
});

test("Escape takes it away and leaves the text alone", async () => {
  await code.open("escape.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  await code.press("Escape");
  await code.untilGhost("");
  await code.untilSaved("escape.txt", `${SAY}x = \n`);
});

test("what stands behind the cursor is not written twice", async () => {
  const say = "# say one, two)\n\n";
  await code.open("suffix.txt", `${say}call|)\n`);
  await code.type("(");
  await code.untilGhost("one, two");
  await code.press("Tab");
  await code.untilSaved("suffix.txt", `${say}call(one, two)\n`);
});

test("beside an open suggest widget, what is shown extends the selected word", async () => {
  code.configure({ "editor.wordBasedSuggestions": "currentDocument" });
  const say = "# say (soup)\n";
  await code.open("suggest.txt", `${say}alphabet\n|\n`);
  await code.type("alp");
  await code.press("Control+Space"); // VS Code itself opens none while ghost text is shown
  await code.page.locator(".suggest-widget.visible").waitFor();
  await code.untilGhost(/^(habet)?\(soup\)$/); // VS Code may show the word's rest on its own
  await code.picture("suggest");
  await code.press("Tab");
  await code.untilGhost("(soup)");
  await code.press("Tab");
  await code.untilSaved("suggest.txt", `${say}alphabet\nalphabet(soup)\n`);
  code.configure({});
});

test("a word that is not finished is completed", async () => {
  await code.open("word-begun.txt", "# say turn alpha\n\n|\n");
  await code.type("re");
  await code.untilGhost("turn alpha");
});

test("Alt+\\ asks where nothing is offered unasked, Alt+] shows the next alternative and Alt+[ the one before", async () => {
  await code.open("middle.py", "# say one()\\ntwo()\n\nx = | # why\n");
  await code.press("Alt+Backslash");
  await code.untilGhost("one()");
  await code.open("alternatives.py", "# say one()\\ntwo()\n\nx = |\n");
  await code.press("Alt+Backslash");
  await code.untilGhost("one()");
  const secondLine = code.page.locator(".suggest-preview-text").getByText("two()");
  await code.press("Alt+BracketRight");
  await secondLine.waitFor({ state: "attached" });
  await code.press("Alt+BracketLeft");
  await secondLine.waitFor({ state: "detached" });
  await code.untilGhost("one()");
});

test("completions that are off, a pause, a language that is off and an excluded file are said, and end", async () => {
  await code.open("off.txt", `${SAY}|\n`);
  await code.choose("Turn On or Off");
  await code.untilStatus(/disabled: completions are off$/);
  await code.choose("Turn On or Off");
  await code.untilStatus(/ready/);
  await code.choose("Pause for 5 Minutes");
  await code.untilStatus(/snoozed: completions pause for 5 min more/);
  await code.choose("End the Pause");
  await code.untilStatus(/ready/);
  await code.choose("Turn On or Off in This Language");
  await code.untilStatus(/disabled: completions are off in plaintext/);
  await code.choose("Turn On or Off in This Language");
  await code.untilStatus(/ready/);
  await code.open(".env", "|\n");
  await code.type("KEY=");
  await code.untilStatus(/excluded: /);
  await code.open("on.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  await code.untilStatus(/ready: scripted · cpu · last answer \d+ ms/);
});

test("while a selection stands, as in a snippet, nothing is asked for unasked", async () => {
  code.configure({ "editor.inlineSuggest.suppressInSnippetMode": false }); // or VS Code asks for nothing there
  const snippet = { Ask: { prefix: "ask", body: "x = ${1:value}" } };
  writeFileSync(path.join(code.workspace, ".vscode/ask.code-snippets"), JSON.stringify(snippet));
  await code.open("snippet.ini", `${SAY}|\n`);
  await until(async () => {
    await code.press("Escape");
    await code.run("Snippets: Insert Snippet"); // again where VS Code has not read the snippet yet
    return appears(code.page.locator(".quick-input-list .monaco-list-row").getByText("ask"));
  });
  await code.page.keyboard.insertText("ask");
  await code.press("Enter");
  await code.page.locator(".selected-text").first().waitFor({ state: "attached" });
  await code.page.waitForTimeout(1000); // for what must not come
  assert.ok(!noted('"language": "ini"'));
  await code.press("Backspace", "Backspace", "Space"); // the selection is gone, and something is typed
  await code.untilGhost("alpha beta(gamma)");
  await until(() => noted('"language": "ini"'));
  code.configure({});
});

test("while the engine is asked, the status says that it thinks", async () => {
  await code.open("thinking.txt", "slow 1000|\n"); // steps: many seconds
  await code.press("Enter");
  await code.untilStatus(/thinking/);
});

test("a second file in the same window has its own completions", async () => {
  await code.open("second.txt", "# say second answer\n\n|\n");
  await code.type("y = ");
  await code.untilGhost("second answer");
});

test("a notebook's cell is completed with the cells above it in view", async () => {
  const cells = ["# say alpha(beta)", "|"].map((source) => ({ cell_type: "code", metadata: {}, outputs: [], source }));
  const book = JSON.stringify({ cells, metadata: { kernelspec: { language: "python", name: "python3" } }, nbformat: 4, nbformat_minor: 2 });
  await code.open("book.ipynb", book);
  await code.page.locator(".notebookOverlay .cell-editor-container").nth(1).click();
  await code.type("x = ");
  await code.untilGhost("alpha(beta)");
});

test("settings hold at once", async () => {
  await code.open("live.txt", `${SAY}|\n`);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
  code.configure({ "dgLsp.enabled": false });
  await until(async () => {
    await code.press("Backspace", "Space");
    return (await code.ghost()) === "";
  }, () => "there still is a ghost text");
  await code.untilStatus(/disabled: completions are off/);
  code.configure({});
  await until(async () => {
    await code.press("Backspace", "Space");
    return appears(code.page.locator(GHOST));
  }, () => "there is no ghost text again");
  await code.untilGhost("alpha beta(gamma)");
});

test("a killed server comes back by itself", async () => {
  await code.open("killed.txt", `${SAY}|\n`);
  const [old, ...others] = code.servers();
  assert.ok(old && others.length === 0);
  process.kill(old, "SIGKILL");
  await until(() => code.servers().some((pid) => pid !== old));
  await code.untilStatus(/ready/);
  await code.type("x = ");
  await code.untilGhost("alpha beta(gamma)");
});
