# ruff: noqa: E501 - one style rule a line reads better than one broken over four.
"""Markup, style and script of the pages that `training.evaluation.report` and `training.evaluation.compare_page` fill in.

They need nothing from a network and, but for sorting and enlarging, no script: printed, mailed with
their pictures or opened from a memory stick they read the same.
"""

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: light-dark(#faf9f7, #131416);
  --card: light-dark(#ffffff, #1b1d20);
  --ink: light-dark(#1c1b1a, #eceae7);
  --muted: light-dark(#6b6660, #9c9791);
  --line: light-dark(#e7e3dd, #2c2f33);
  --accent: light-dark(#0b6e5f, #55cdb6);
  --tint: light-dark(#e6f2ef, #17322d);
}
:root[data-theme="light"] { color-scheme: light; }
:root[data-theme="dark"] { color-scheme: dark; }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums;
}
.scroll { margin-top: 28px; }
main, body > header, body > footer { max-width: 1360px; margin: 0 auto; padding: 0 clamp(16px, 4vw, 40px); }
body > header { padding-top: clamp(24px, 5vw, 56px); display: flex; gap: 16px; align-items: flex-start; }
body > header > div { flex: 1; min-width: 0; }
h1 { font-size: clamp(1.6rem, 4.4vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 0; }
.lede { color: var(--muted); margin: 8px 0 0; max-width: 70ch; overflow-wrap: anywhere; }
button, select { font: inherit; color: inherit; }
.theme {
  flex: none; width: 40px; height: 40px; border-radius: 20px; border: 1px solid var(--line);
  background: var(--card); cursor: pointer; display: grid; place-items: center; padding: 0;
}
.theme svg { width: 18px; height: 18px; display: block; }
dl.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 1px; margin: 28px 0;
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
}
.tiles div { padding: 16px 20px; box-shadow: 0 0 0 1px var(--line); }
.tiles dt { color: var(--muted); font-size: .85rem; }
.tiles dd { margin: 2px 0 0; font-size: 1.7rem; font-weight: 600; letter-spacing: -.02em; line-height: 1.2; }
.tiles small { font-size: .9rem; font-weight: 400; color: var(--muted); margin-left: 4px; letter-spacing: 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 14px; background: var(--card); }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem; }
th, td { padding: 9px 14px; text-align: right; white-space: nowrap; font-weight: 400; }
thead th { color: var(--muted); font-size: .82rem; padding: 8px 14px; border-bottom: 1px solid var(--line); vertical-align: bottom; }
thead th[colspan] { text-align: left; border-left: 1px solid var(--line); border-bottom: 0; color: var(--ink); font-weight: 600; padding-bottom: 0; }
.edge { border-left: 1px solid var(--line); }
th[scope="row"], thead th:first-child[rowspan] { text-align: left; position: sticky; left: 0; background: var(--card); z-index: 1; }
tbody tr:first-child th[scope="row"] { font-weight: 600; }
tbody tr:not(:last-child) > :is(td, th[scope="row"]) { border-bottom: 1px solid var(--line); }
tr.bucket th { text-align: left; background: var(--paper); color: var(--muted); font-size: .82rem; font-weight: 600; padding: 8px 14px; border-bottom: 1px solid var(--line); }
tr.bucket span { position: sticky; left: 14px; }
tbody:not(:last-child) tr:last-child > * { border-bottom: 1px solid var(--line); }
td.best { color: var(--accent); font-weight: 650; }
.bar {
  position: sticky; top: 0; z-index: 3; display: flex; flex-wrap: wrap; gap: 10px 16px; align-items: center;
  margin: 40px 0 16px; padding: 12px 0; background: var(--paper);
}
.bar p { margin: 0; color: var(--muted); font-size: .92rem; flex: 1 1 200px; }
.controls { display: flex; gap: 8px; }
.bar label { display: contents; }
.bar select { max-width: 44vw; height: 40px; padding: 0 12px; border-radius: 10px; border: 1px solid var(--line); background: var(--card); }
.segments { display: flex; border: 1px solid var(--line); border-radius: 10px; overflow: hidden; background: var(--card); }
.segments button { border: 0; background: none; height: 38px; padding: 0 14px; cursor: pointer; white-space: nowrap; color: var(--muted); }
.segments button[aria-pressed="true"] { background: var(--tint); color: var(--accent); font-weight: 600; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
#gallery { --columns: /*columns*/; display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(var(--columns) * 132px)), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px; min-width: 0; content-visibility: auto; contain-intrinsic-size: auto 320px; }
article header { display: flex; flex-wrap: wrap; gap: 0 14px; justify-content: space-between; margin-bottom: 10px; font-size: .86rem; }
h3 { font-size: inherit; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
article header p { margin: 0; color: var(--muted); }
.strip { display: grid; gap: 10px; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
.strip.drawn { margin-top: 12px; }
figure { margin: 0; min-width: 0; }
figure button { display: block; width: 100%; padding: 0; border: 0; background: none; border-radius: 8px; cursor: zoom-in; }
figure img { display: block; width: 100%; height: auto; border-radius: 8px; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 8px; font-size: .8rem; color: var(--muted); margin-top: 5px; }
figcaption b { font-weight: 500; color: var(--ink); }
body > footer { padding-top: 40px; padding-bottom: 56px; color: var(--muted); font-size: .86rem; }
footer ul { padding-left: 1.1em; margin: 10px 0; }
footer li { margin: 4px 0; overflow-wrap: anywhere; }
code { font: .92em/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
footer code { display: block; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
dialog { border: 0; padding: 0; background: none; color: #f2f0ed; max-width: none; max-height: none; width: 100vw; height: 100dvh; }
dialog::backdrop { background: rgb(10 10 12 / .97); }
dialog[open] { display: flex; flex-direction: column; align-items: center; justify-content: center; gap: 14px; }
dialog img { width: min(92vw, 100dvh - 150px, 1024px); height: auto; max-height: calc(100dvh - 150px); object-fit: contain; border-radius: 6px; }
dialog nav { display: flex; flex-wrap: wrap; justify-content: center; gap: 6px; padding: 0 12px; }
dialog nav button { border: 1px solid rgb(255 255 255 / .25); background: none; border-radius: 18px; padding: 5px 14px; cursor: pointer; }
dialog nav button[aria-pressed="true"] { background: #f2f0ed; color: #16171a; border-color: #f2f0ed; }
dialog p { margin: 0; font-size: .86rem; opacity: .7; padding: 0 16px; text-align: center; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .strip { grid-template-columns: repeat(min(var(--columns), 3), minmax(0, 1fr)); gap: 8px; }
  article { padding: 10px; }
  dl.tiles { grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); }
  .tiles div { padding: 12px 14px; }
  .tiles dd { font-size: 1.3rem; }
  .controls { width: 100%; }
  .bar select { flex: 1; min-width: 0; max-width: none; padding: 0 4px 0 10px; }
  .segments button { padding: 0 11px; }
  .bar { font-size: .95rem; }
  th, td { padding: 8px 10px; }
}
@media print { .bar, .theme { display: none; } article { break-inside: avoid; content-visibility: visible; } }
"""
"""For both pages."""

THEME_SCRIPT = """\
"use strict";
const root = document.documentElement;
document.querySelector(".theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
"""
"""Light and dark."""

SCRIPT = (
    THEME_SCRIPT
    + """
const gallery = document.getElementById("gallery");
const select = document.querySelector(".bar select[aria-label='Sort by']");
const orders = [...document.querySelectorAll("[data-order]")];
const cards = [...gallery.children].map(element => ({
  element, file: element.dataset.file, values: JSON.parse(element.dataset.values),
}));
const whose = document.getElementById("whose");  // a comparison's page alone has it
function value(card, method) {
  if (select.value === "hole") return card.values.hole;
  if (!whose) return card.values[select.value];
  if (method !== "spread") return card.values[method][select.value];
  const all = [...whose.options].slice(1).map(option => card.values[option.value][select.value]).filter(v => v !== null);
  return all.length ? Math.max(...all) - Math.min(...all) : null;
}
function badness(card) {
  const found = value(card, whose?.value);
  if (found === null || found === undefined) return -Infinity;  // identical to the truth, or no hole
  return select.selectedOptions[0].dataset.better === "higher" && whose?.value !== "spread" ? -found : found;
}
function label() {
  const {decimals, unit} = select.selectedOptions[0].dataset;
  if (!whose || decimals === undefined) return;
  for (const card of cards) for (const figure of card.element.querySelectorAll("figure[data-method]")) {
    const found = value(card, figure.dataset.method);
    figure.querySelector("span").textContent = found === null ? "–" : `${found.toFixed(decimals)} ${unit}`.trim();
  }
}
function sort() {
  const sign = orders.find(button => button.getAttribute("aria-pressed") === "true").dataset.order === "worst" ? -1 : 1;
  const byFile = (a, b) => a.file < b.file ? -1 : a.file > b.file ? 1 : 0;
  cards.sort((a, b) => {
    const x = badness(a), y = badness(b);
    return x === y ? byFile(a, b) : sign * (x < y ? -1 : 1);
  });
  gallery.append(...cards.map(card => card.element));
}
for (const menu of [select, whose]) menu?.addEventListener("change", () => { sort(); label(); });
for (const button of orders) button.addEventListener("click", () => {
  for (const other of orders) other.setAttribute("aria-pressed", String(other === button));
  sort();
});

const dialog = document.querySelector("dialog");
const [large, tabs, caption] = dialog.children;
let figures = [], shown = 0;
function show(index) {
  shown = (index + figures.length) % figures.length;
  const image = figures[shown].querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  [...tabs.children].forEach((tab, i) => tab.setAttribute("aria-pressed", String(i === shown)));
}
document.querySelector("main").addEventListener("click", event => {
  const figure = event.target.closest("figure");
  const card = figure?.closest("article");
  if (!card) return;
  figures = [...card.querySelectorAll("figure")];
  tabs.replaceChildren(...figures.map((other, i) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.textContent = other.querySelector("b").textContent;
    tab.addEventListener("click", () => show(i));
    return tab;
  }));
  caption.textContent = card.querySelector("h3").textContent + ": " + card.querySelector("header p").textContent;
  show(figures.indexOf(figure));
  dialog.showModal();
});
dialog.addEventListener("click", event => { if (event.target === dialog || event.target === large) dialog.close(); });
dialog.addEventListener("keydown", event => {
  if (event.key === "ArrowRight") show(shown + 1);
  else if (event.key === "ArrowLeft") show(shown - 1);
});
"""
)
"""Light and dark, sorting, enlarging; for both pages."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title><!--title--></title>
<style>
<!--style--></style>
</head>
<body>
<header>
  <div><h1><!--title--></h1><p class="lede"><!--subtitle--></p></div>
  <button class="theme" type="button" aria-label="Switch between light and dark">
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2"><circle cx="12" cy="12" r="9"/><path d="M12 3a9 9 0 0 1 0 18z" fill="currentColor"/></svg>
  </button>
</header>
<main>
  <!--tiles-->
  <div class="scroll" tabindex="0" role="region" aria-label="Results"><!--tables--></div>
  <div class="bar">
    <p><b><!--shown--></b> Press one to enlarge and compare.</p>
    <div class="controls">
      <label><select aria-label="Sort by"><!--sorts--></select></label>
      <div class="segments" role="group" aria-label="Order">
        <button type="button" data-order="worst" aria-pressed="true">Worst first</button>
        <button type="button" data-order="best" aria-pressed="false">Best first</button>
      </div>
    </div>
  </div>
  <section id="gallery" aria-label="Images">
<!--cards-->
  </section>
  <!--attention-->
</main>
<footer>
  <h2>About these numbers</h2>
  <ul><!--notes--></ul>
  <code><!--command--></code>
</footer>
<dialog aria-label="Enlarged image"><img alt=""><nav></nav><p></p></dialog>
<script>
<!--script--></script>
</body>
</html>
"""
"""One model's page; `<!--name-->` and `/*name*/` are filled in."""
