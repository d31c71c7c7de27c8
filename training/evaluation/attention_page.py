# ruff: noqa: E501 - one style rule a line reads better than one broken over four.
"""The section of a page in which one chooses a position of the hole and sees what filled it.

`training.evaluation.attention_maps.write_section` fills in the `<!--name-->`s. Like the pages it stands in it
needs nothing from a network.
"""

SECTION = """<section class="attention" aria-labelledby="attention-title">
<style>
.attention { --a-ink: var(--ink, #1c1b1a); --a-muted: var(--muted, #6b6660); --a-line: var(--line, #e0dbd4); --a-card: var(--card, #fff); margin-top: 56px; color: var(--a-ink); }
.attention .top { display: flex; flex-wrap: wrap; gap: 14px 28px; align-items: center; margin-bottom: 16px; }
.attention .top > div { flex: 1 1 320px; }
.attention h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 0; }
.attention p { margin: 4px 0 0; color: var(--a-muted); font-size: .92rem; max-width: 76ch; }
.attention .legend { display: flex; gap: 12px; align-items: center; flex: 0 1 300px; margin: 0; }
.attention .legend img { width: 76px; height: 76px; flex: none; border-radius: 0; }
.attention .legend figcaption { display: block; font-size: .8rem; line-height: 1.35; color: var(--a-muted); margin: 0; }
.attention .pick { display: flex; gap: 8px; align-items: center; margin: 0 0 14px; }
.attention select { font: inherit; color: inherit; height: 40px; max-width: 100%; padding: 0 12px; border-radius: 10px; border: 1px solid var(--a-line); background: var(--a-card); }
.attention .scales { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); align-items: start; }
.attention .scale { background: var(--a-card); border: 1px solid var(--a-line); border-radius: 14px; padding: 14px; min-width: 0; max-width: 640px; }
.attention h3 { font-size: .95rem; font-weight: 600; margin: 0 0 10px; }
.attention canvas { display: block; width: 100%; height: auto; border-radius: 8px; cursor: crosshair; touch-action: pan-y; background: #222; }
.attention canvas:focus-visible { outline: 2px solid var(--accent, #0b6e5f); outline-offset: 2px; }
.attention .says { min-height: 3.2em; margin: 8px 0 10px; font-size: .86rem; line-height: 1.5; color: var(--a-ink); }
.attention .pair { display: grid; gap: 10px; grid-template-columns: repeat(3, 1fr); }
.attention .pair figure { margin: 0; }
.attention .pair img { display: block; width: 100%; height: auto; border-radius: 8px; }
.attention .pair figcaption { display: block; font-size: .8rem; color: var(--a-muted); margin-top: 5px; }
.attention .words { font-size: .8rem; }
@media print { .attention .pick { display: none; } }
</style>
<div class="top">
  <div>
    <h2 id="attention-title">Where the filling came from</h2>
    <p>Point at a position of the hole, or move with the arrow keys: the light shows what was blended into it, every position of the feature map by its weight, the strongest known one brightest; squares and curves mark the strongest known ones. Light inside the hole is weight on the filling's own features.</p>
  </div>
  <figure class="legend"><img src="<!--wheel-->" alt="Colour wheel"><figcaption>Colour map and arrows: the place in the disc is where the strongest source lies, seen from the position. Rim: <!--reach--> of the diagonal and beyond.</figcaption></figure>
</div>
<div class="pick"><select aria-label="Image"></select></div>
<div class="scales"></div>
<script type="application/json" class="attention-data"><!--data--></script>
<script>
"use strict";
{
  const section = document.querySelector(".attention");
  const items = JSON.parse(section.querySelector(".attention-data").textContent);
  const select = section.querySelector("select");
  const list = section.querySelector(".scales");
  const percent = share => (100 * share).toFixed(share < .0995 ? 1 : 0) + " %";
  const load = source => { const image = new Image(); image.src = source; return image; };
  const tinted = document.createElement("canvas");
  let item, views, at;

  items.forEach((each, i) => select.add(new Option(each.title, i)));
  select.parentElement.hidden = items.length < 2;
  select.addEventListener("change", () => open(items[select.value]));

  function make(tag, parent, properties = {}) {
    const element = Object.assign(document.createElement(tag), properties);
    parent.append(element);
    return element;
  }

  function open(chosen) {
    item = chosen;
    list.replaceChildren();
    const background = load(item.background);
    views = item.scales.map(scale => {
      const box = make("div", list, { className: "scale" });
      make("h3", box, { textContent: scale.label });
      const canvas = make("canvas", box, { tabIndex: 0 });
      const enlarge = Math.max(1, Math.round(768 / Math.max(...item.size)));
      canvas.width = item.size[0] * enlarge;
      canvas.height = item.size[1] * enlarge;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", "Sources by " + scale.label + "; arrow keys choose the position");
      const says = make("p", box, { className: "says" });
      says.setAttribute("aria-live", "polite");
      const pair = make("div", box, { className: "pair" });
      for (const [label, source] of scale.drawings) {
        const figure = make("figure", pair);
        make("img", figure, { src: source, alt: label + ", " + scale.label, loading: "lazy" });
        make("figcaption", figure, { textContent: label });
      }
      make("p", box, { className: "words", textContent: scale.words });
      const view = { scale, canvas, says, background, atlas: load(scale.atlas) };
      for (const image of [background, view.atlas]) image.addEventListener("load", () => draw(view));
      const point = event => {
        const frame = canvas.getBoundingClientRect();
        choose((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
      };
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
      canvas.addEventListener("keydown", event => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (step) { event.preventDefault(); walk(view, step); }
      });
      return view;
    });
    const { positions, map } = item.scales[0];
    const middle = positions[Math.floor(positions.length / 2 + Math.sqrt(positions.length) / 2)] || positions[0];
    at = middle ? [(middle[1] + .5) / map[1], (middle[0] + .5) / map[0]] : [.5, .5];
    choose(...at);
  }

  function nearest(scale, x, y) {
    let best = -1, least = Infinity;
    scale.positions.forEach(([row, column], i) => {
      const distance = Math.hypot((column + .5) / scale.map[1] - x, (row + .5) / scale.map[0] - y);
      if (distance < least) { least = distance; best = i; }
    });
    return best;
  }
  function choose(x, y) {
    at = [x, y];
    for (const view of views) {
      const index = nearest(view.scale, x, y);
      if (index !== view.index) { view.index = index; draw(view); }
    }
  }
  function walk(view, [right, down]) {
    const { positions, map } = view.scale;
    const [row, column] = positions[view.index];
    let best = null, least = Infinity;
    for (const other of positions) {
      const along = (other[1] - column) * right + (other[0] - row) * down;
      const across = Math.abs((other[1] - column) * down) + Math.abs((other[0] - row) * right);
      if (along > 0 && along + 3 * across < least) { least = along + 3 * across; best = other; }
    }
    if (best) choose((best[1] + .5) / map[1], (best[0] + .5) / map[0]);
  }

  function draw({ scale, canvas, says, background, atlas, index }) {
    const context = canvas.getContext("2d"), { width, height } = canvas, [rows, columns] = scale.map;
    if (!background.complete || !background.naturalWidth) return;
    context.imageSmoothingEnabled = true;
    context.drawImage(background, 0, 0, width, height);
    if (index === undefined || index < 0) { says.textContent = "Nothing is filled here: no known patch is left to take from."; return; }
    context.fillStyle = "rgb(12 12 16 / .62)";
    context.fillRect(0, 0, width, height);
    if (atlas.complete && atlas.naturalWidth) {
      tinted.width = columns; tinted.height = rows;
      const ink = tinted.getContext("2d");
      ink.drawImage(atlas, index % scale.columns * columns, Math.floor(index / scale.columns) * rows, columns, rows, 0, 0, columns, rows);
      ink.globalCompositeOperation = "source-in";
      ink.fillStyle = "#ffc93c";
      ink.fillRect(0, 0, columns, rows);
      context.imageSmoothingEnabled = false;
      context.globalAlpha = .85;
      context.drawImage(tinted, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    const [row, column, sources, spread, known] = scale.positions[index];
    const cell = [width / columns, height / rows], unit = Math.max(width, height) / 512;
    const middle = (y, x) => [(x + .5) * cell[0], (y + .5) * cell[1]];
    const square = (y, x, color, thickness) => {
      const [cx, cy] = middle(y, x), [w, h] = cell;
      for (const [stroke, line] of [["rgb(12 12 16 / .9)", thickness + 2.4], [color, thickness]]) {
        context.strokeStyle = stroke; context.lineWidth = line * unit;
        context.strokeRect(cx - w / 2, cy - h / 2, w, h);
      }
    };
    const [x, y] = middle(row, column);
    [...sources].reverse().forEach(([r, c, share]) => {
      const [sx, sy] = middle(r, c), relative = share / sources[0][2];
      const bend = [(sx + x) / 2 - .12 * (y - sy), (sy + y) / 2 + .12 * (x - sx)];
      for (const [stroke, line] of [["rgb(12 12 16 / .8)", 1.2 + 2 * relative + 1.8], ["#fff", 1.2 + 2 * relative]]) {
        context.strokeStyle = stroke; context.lineWidth = line * unit;
        context.beginPath(); context.moveTo(sx, sy); context.quadraticCurveTo(...bend, x, y); context.stroke();
      }
      square(r, c, "#ffe9a8", 1.4);
    });
    square(row, column, "#5ff0d2", 2);
    says.textContent = sources.length
      ? `Strongest source ${percent(sources[0][2])} of the weight, the ${sources.length} drawn ${percent(sources.reduce((sum, each) => sum + each[2], 0))}; spread as over ${spread < 9.95 ? spread.toFixed(1) : Math.round(spread)} equal ones; ${percent(known)} from known positions.`
      : "All of the weight lies in the hole itself.";
  }
  open(items[0]);
}
</script>
</section>
"""
