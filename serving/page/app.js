/** The page: what the buttons, the keys and the pointer do. */

import { describeModel, inpaint, token } from "./api.js";
import { Display } from "./display.js";
import { listen } from "./gestures.js";
import { complain, hush, say, sayBusy } from "./notices.js";
import { checkLimits, isResult, makeReadable, read, release, stem } from "./photographs.js";
import { BrushStroke, RectangleStroke, encodeMask } from "./strokes.js";
import { Timeline } from "./timeline.js";
import { Viewport } from "./viewport.js";

const KEY_STEP = 8; // CSS pixels an arrow key moves the brush by
const SIZE_STEP = 1.2;
const ZOOM_STEP = 1.25;
const MARGIN = 20;

const element = (id) => document.getElementById(id);
const stage = element("stage");
const timeline = new Timeline();
const viewport = new Viewport();
const display = new Display(viewport);

let tool = "brush";
let size = 32; // of the brush, in pixels of the photograph
let stroke = null; // the one that is being painted
let corner = null; // where the rectangle in the making began
let point = null; // where the pointer is, in CSS pixels of the stage
let cursor = null; // where the arrow keys have moved the brush, in pixels of the photograph
let isSpaceDown = false;
let running = null; // an AbortController
let opening = 0;
let limits = {};
let models = [];
let saved = null; // the photograph that was downloaded last
let shown = null; // the photograph that is on the screen

// Photographs ---------------------------------------------------------------------------------

/** Opens an image file; what was open before is one step back. */
async function openPhotograph(blob, name) {
  if (running) {
    sayBusy();
    return;
  }
  const turn = (opening += 1);
  hush();
  try {
    if (blob.type && !blob.type.startsWith("image/")) {
      throw new Error(`${name} is not a photograph.`);
    }
    const photograph = await makeReadable(await read(blob, name));
    if (turn !== opening) return;
    checkLimits(photograph, limits);
    if (running) {
      sayBusy(); // since it was being decoded
      return;
    }
    endStroke();
    abandonRectangle();
    const before = timeline.current?.photograph;
    push({ photograph, strokes: [] });
    if (before?.width !== photograph.width || before.height !== photograph.height) {
      size = defaultSize(photograph);
    }
    await show();
    stage.focus({ preventScroll: true });
    say(`${name} is open. Paint over what should go.`);
  } catch (error) {
    if (turn === opening) complain(error.message);
  }
}

/** Makes a state current, and lets go of photographs that no step leads back to. */
function push(state) {
  const before = photographs();
  timeline.push(state);
  const after = photographs();
  for (const photograph of before) {
    if (!after.has(photograph)) release(photograph);
  }
}

function photographs() {
  return new Set(timeline.states.flatMap(({ photograph }) => [photograph, photograph.original]));
}

/** Brings the screen to the current state. */
async function show({ fades = false } = {}) {
  const state = timeline.current;
  const { photograph, strokes } = state;
  if (stage.hidden) {
    document.body.dataset.mode = "edit";
    element("start").hidden = true;
    for (const id of ["stage", "toolbar", "zoom", "file"]) element(id).hidden = false;
  }
  compare(false);
  await display.showPhotograph(photograph, fades);
  if (state !== timeline.current) return; // a later step is being shown already
  display.strokes = strokes;
  const isOther = shown?.original !== photograph.original;
  shown = photograph;
  if (isOther) {
    viewport.setPhotograph(photograph.width, photograph.height);
    measure();
    viewport.fit();
    cursor = null;
  }
  setSize(size);
  const name = photograph.original.name;
  element("file-name").textContent = name;
  element("file-size").textContent = `${photograph.width} × ${photograph.height}`;
  document.title = `${name} – musical`;
  update();
}

/** The part of the stage that neither the bar nor the toolbar covers. */
function measure() {
  const box = stage.getBoundingClientRect();
  const top = document.querySelector(".bar").offsetHeight + MARGIN / 2;
  const bottom = element("toolbar").offsetTop - MARGIN; // where it will be, not where it rises
  const margin = Math.min(MARGIN, box.width * 0.03);
  display.setArea({
    left: margin,
    top,
    width: Math.max(40, box.width - 2 * margin),
    height: Math.max(40, bottom - top),
  });
}

// Filling -------------------------------------------------------------------------------------

const isPainted = () => timeline.current.strokes.some((one) => !one.erases);

async function run() {
  if (running || !timeline.current) return;
  endStroke();
  abandonRectangle();
  if (!isPainted()) {
    say("Nothing is painted yet. Paint over what should go.");
    return;
  }
  compare(false);
  hush();
  const { photograph, strokes } = timeline.current;
  const controller = (running = new AbortController());
  const { signal } = controller;
  const since = performance.now();
  const clock = setInterval(() => {
    element("run-time")?.replaceChildren(` ${Math.round((performance.now() - since) / 1000)} s`);
  }, 1000);
  say("Filling…", { lasts: true, clock: true });
  display.shimmer(true);
  update();
  try {
    checkLimits(photograph, limits);
    const mask = await encodeMask(photograph.width, photograph.height, strokes);
    signal.throwIfAborted();
    if (mask.holePixels === 0) {
      say("The eraser removed all paint. Paint over what should go.");
      return;
    }
    const { blob, milliseconds } = await inpaint(photograph.blob, photograph.name, mask.blob, {
      model: models.length > 1 ? element("model-choice").value : "",
      signal,
      onWait: (seconds) => say(`The server is busy. Next try in ${seconds} s.`, { lasts: true }),
    });
    const name = `${stem(photograph.original.name)}.png`;
    const result = await read(blob, name, photograph.original);
    signal.throwIfAborted();
    push({ photograph: result, strokes: [] });
    await show({ fades: true });
    const seconds = (milliseconds || performance.now() - since) / 1000;
    const took = seconds < 0.1 ? "less than 0.1" : seconds.toFixed(seconds < 10 ? 1 : 0);
    say(`Filled in ${took} s. Paint again, compare or download.`);
  } catch (error) {
    if (signal.aborted) {
      say("Cancelled. Your painting is still here.");
    } else if (error.status === 401) {
      say("");
      running = null;
      askForToken(run);
    } else {
      say("");
      complain(error.message, error.isPassing ? run : null);
    }
  } finally {
    clearInterval(clock);
    if (running === controller) running = null;
    display.shimmer(false);
    update();
  }
}

function cancel() {
  running?.abort();
}

function undo() {
  if (running || !timeline.canUndo) return;
  travel(() => timeline.undo());
}

function redo() {
  if (running || !timeline.canRedo) return;
  travel(() => timeline.redo());
}

async function travel(step) {
  endStroke();
  abandonRectangle();
  const before = timeline.current.photograph;
  const state = step();
  await show();
  if (state !== timeline.current) return;
  const { photograph } = state;
  if (photograph.original !== before.original) say(`Back to ${photograph.original.name}.`);
  else if (photograph !== before) say(isResult(photograph) ? "Filled." : "Before it was filled.");
}

function clear() {
  if (running || !timeline.current?.strokes.length) return;
  endStroke();
  push({ photograph: timeline.current.photograph, strokes: [] });
  show();
}

function download() {
  const photograph = timeline.current?.photograph;
  if (!photograph || !isResult(photograph)) {
    say("Nothing is filled yet.");
    return;
  }
  const link = document.createElement("a");
  link.href = photograph.image.src;
  link.download = `${stem(photograph.original.name)}-inpainted.png`;
  link.click();
  saved = photograph;
}

async function compare(isOn) {
  if (isOn === (display.split !== null)) return;
  const photograph = timeline.current?.photograph;
  if (isOn && (running || !photograph || !isResult(photograph))) {
    if (!running) say("Nothing is filled yet.");
    return;
  }
  endStroke();
  abandonRectangle();
  if (document.activeElement === element("divider")) stage.focus({ preventScroll: true });
  if (isOn) say(""); // it would lie over the labels of a small screen
  display.split = isOn ? 0.5 : null;
  update();
  await display.setBefore(isOn ? photograph.original : null);
}

// Painting ------------------------------------------------------------------------------------

const isDrawn = () => tool !== "rectangle";

/** Whether what is seen is what would be painted on. */
const isUpToDate = () => shown === timeline.current.photograph;

function beginStroke(x, y) {
  stroke = new BrushStroke(size, tool === "eraser", x, y);
  display.strokes = [...timeline.current.strokes, stroke];
  display.addFresh(stroke);
}

function endStroke() {
  if (!stroke) return;
  const finished = stroke.finish();
  stroke = null;
  // An eraser that touches nothing is no step to undo.
  if (finished.erases && !isPainted()) display.strokes = timeline.current.strokes;
  else addStroke(finished);
  update();
}

function addStroke(finished) {
  const { photograph, strokes } = timeline.current;
  push({ photograph, strokes: [...strokes, finished] });
  display.strokes = timeline.current.strokes;
}

function abandonStroke() {
  stroke = null;
  display.strokes = timeline.current?.strokes ?? [];
  display.refresh();
}

function endRectangle(to) {
  const { width, height } = timeline.current.photograph;
  const rectangle = RectangleStroke.between(corner, to, width, height);
  abandonRectangle();
  if (rectangle) addStroke(rectangle);
  update();
}

function abandonRectangle() {
  corner = display.rectangle = null;
  display.refresh();
}

listen(stage, {
  wantsPan: () => isSpaceDown,
  start([x, y]) {
    cursor = null;
    point = [x, y];
    if (display.split !== null) {
      splitAt(x);
    } else if (running) {
      sayBusy();
    } else if (isUpToDate()) {
      const where = viewport.toPhotograph(x, y);
      if (isDrawn()) beginStroke(...where);
      else corner = where;
      placeBrush();
    }
  },
  move(points) {
    if (display.split !== null) {
      splitAt(points.at(-1)[0]);
    } else if (stroke) {
      for (const [x, y] of points) stroke.extend(...viewport.toPhotograph(x, y));
      display.addFresh(stroke);
    } else if (corner) {
      display.rectangle = [corner, viewport.toPhotograph(...points.at(-1))];
      display.refresh();
    }
  },
  end() {
    if (corner) endRectangle(display.rectangle?.[1] ?? corner);
    endStroke();
  },
  cancel() {
    abandonStroke();
    abandonRectangle();
  },
  hover(where, type) {
    if (type === "touch") {
      point = stroke ? where : null;
    } else {
      point = where;
      if (where) cursor = null;
    }
    placeBrush();
  },
  pan(dx, dy) {
    viewport.pan(dx, dy);
    display.refresh();
  },
  zoom([x, y], factor) {
    viewport.zoomAt(x, y, factor);
    updateZoom();
  },
});

function splitAt(x) {
  const { width } = timeline.current.photograph;
  setSplit(viewport.toPhotograph(x, 0)[0] / width);
}

function setSplit(share) {
  display.split = Math.min(Math.max(share, 0), 1);
  display.refresh();
}

/** Shows the brush in its true size where the pointer or the arrow keys are. */
function placeBrush() {
  const isByKeys = cursor && document.activeElement === stage;
  const where = isByKeys ? viewport.toStage(...cursor) : point;
  const isBrush = isDrawn() || isByKeys;
  display.brush =
    where && isBrush && display.split === null && !isSpaceDown && !running
      ? { x: where[0], y: where[1], size: isDrawn() ? size * viewport.scale : 8, isDown: stroke }
      : null;
  display.placeBrush();
}

function setTool(name) {
  endStroke();
  abandonRectangle();
  tool = name;
  compare(false);
  update();
}

const defaultSize = ({ width, height }) => Math.max(6, Math.round(Math.min(width, height) * 0.08));

function largestSize() {
  const { width, height } = timeline.current.photograph;
  return Math.max(32, Math.round(Math.min(width, height) / 2));
}

function setSize(pixels) {
  size = Math.min(Math.max(Math.round(pixels), 1), largestSize());
  const input = element("size");
  input.value = Math.round((Math.log(size) / Math.log(largestSize())) * 1000);
  input.setAttribute("aria-valuetext", `${size} pixels`);
  element("size-value").textContent = `${size} px`;
  placeBrush();
}

function changeSize(direction) {
  const next = Math.round(size * SIZE_STEP ** direction);
  setSize(next === size ? size + direction : next);
  showSize();
}

/** Shows the size in the middle for a moment when there is no brush to see it by. */
function showSize() {
  if (point || cursor || !isDrawn()) return;
  const box = element("picture").getBoundingClientRect();
  const x = box.left + box.width / 2;
  const y = box.top + box.height / 2;
  display.brush = { x, y, size: size * viewport.scale };
  display.placeBrush();
  clearTimeout(showSize.timer);
  showSize.timer = setTimeout(placeBrush, 900);
}

// Keys ----------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const KEYS = {
  b: () => setTool("brush"),
  e: () => setTool("eraser"),
  r: () => setTool("rectangle"),
  c: () => compare(display.split === null),
  "[": () => changeSize(-1),
  "]": () => changeSize(1),
  "+": () => zoom(ZOOM_STEP),
  "=": () => zoom(ZOOM_STEP),
  "-": () => zoom(1 / ZOOM_STEP),
  0: fit,
  1: () => zoom(1 / viewport.scale),
  delete: clear,
  backspace: clear,
  enter: run,
};

const KEYS_WITH_CONTROL = {
  z: undo,
  Z: redo,
  y: redo,
  s: download,
  o: () => ACTIONS.open(),
};

/** Where brackets take AltGr, some systems report it as Ctrl and Alt. */
const isAltGraph = (event) => event.getModifierState("AltGraph");

document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" || event.key in ARROWS) document.body.dataset.input = "keys";
  if (document.querySelector("dialog[open]")) return;
  const { key, target } = event;
  if (target.matches("input:not([type=range]), select")) return;
  if ((event.ctrlKey || event.metaKey) && !isAltGraph(event)) {
    const name = event.shiftKey ? key.toUpperCase() : key.toLowerCase();
    const action = KEYS_WITH_CONTROL[name];
    if (action && !event.altKey && (timeline.current || name === "o")) {
      event.preventDefault();
      action();
    }
    return;
  }
  if (key === "?") {
    element("keys").showModal();
  } else if (key === "Escape") {
    escape();
  } else if (timeline.current) {
    pressKey(event);
  }
});

function pressKey(event) {
  const { key, target } = event;
  const isOnControl = target.matches("button, a, input");
  if (key === " " && !isOnControl) {
    event.preventDefault();
    if (!event.repeat) pressSpace();
  } else if (key in ARROWS && target === stage) {
    event.preventDefault();
    if (display.split !== null) setSplit(display.split + ARROWS[key][0] * 0.02);
    else moveCursor(ARROWS[key], event);
  } else if ((!event.altKey || isAltGraph(event)) && !(key === "Enter" && isOnControl)) {
    const action = KEYS[key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

for (const type of ["pointermove", "pointerdown"]) {
  document.addEventListener(type, () => {
    document.body.dataset.input = "pointer";
  });
}

document.addEventListener("keyup", (event) => {
  if (event.key === " ") releaseSpace();
});
window.addEventListener("blur", releaseSpace);

function escape() {
  if (running) cancel();
  else if (stroke) abandonStroke();
  else if (corner) abandonRectangle();
  else if (display.split !== null) compare(false);
  else hush();
}

/** With the arrow keys' brush the space bar paints; with a pointer it moves the photograph. */
function pressSpace() {
  if (!cursor || display.split !== null) {
    isSpaceDown = true;
    update();
  } else if (running) {
    sayBusy();
  } else if (!isUpToDate()) {
    return;
  } else if (isDrawn()) {
    beginStroke(...cursor);
    placeBrush();
  } else if (corner) {
    endRectangle(cursor);
  } else {
    corner = [...cursor];
    display.rectangle = [corner, corner];
    display.refresh();
    say("First corner. Move, then press the space bar again.");
  }
}

function releaseSpace() {
  if (isSpaceDown) {
    isSpaceDown = false;
    update();
  } else if (stroke && cursor) {
    endStroke();
    placeBrush();
  }
}

function moveCursor([dx, dy], { shiftKey, altKey }) {
  const { width, height } = timeline.current.photograph;
  const step = altKey ? 1 : Math.max(1, Math.round(KEY_STEP / viewport.scale)) * (shiftKey ? 6 : 1);
  cursor ??= middle();
  cursor = [
    Math.min(Math.max(cursor[0] + dx * step, 0), width),
    Math.min(Math.max(cursor[1] + dy * step, 0), height),
  ];
  if (stroke) {
    stroke.extend(...cursor);
    display.addFresh(stroke);
  } else if (corner) {
    display.rectangle = [corner, cursor];
  }
  viewport.reveal(...viewport.toStage(...cursor));
  placeBrush();
  display.refresh();
  clearTimeout(moveCursor.timer);
  moveCursor.timer = setTimeout(() => {
    if (cursor) element("position").textContent = `Brush at ${cursor.map(Math.round).join(", ")}`;
  }, 400);
}

function middle() {
  const { width, height } = timeline.current.photograph;
  return [Math.round(width / 2), Math.round(height / 2)];
}

stage.addEventListener("focus", () => {
  if (!stage.matches(":focus-visible") || !timeline.current || display.split !== null) return;
  cursor ??= middle();
  placeBrush();
});
stage.addEventListener("blur", () => {
  releaseSpace();
  placeBrush();
});

element("divider").addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 0.1 : 0.02;
  const share = {
    ArrowLeft: display.split - step,
    ArrowDown: display.split - step,
    ArrowRight: display.split + step,
    ArrowUp: display.split + step,
    PageDown: display.split - 0.1,
    PageUp: display.split + 0.1,
    Home: 0,
    End: 1,
  }[event.key];
  if (share === undefined) return;
  event.preventDefault();
  setSplit(share);
});

// Zoom ----------------------------------------------------------------------------------------

function zoom(factor) {
  viewport.zoomAtCentre(factor);
  updateZoom();
}

function fit() {
  viewport.fit();
  updateZoom();
}

function updateZoom() {
  const percent = viewport.scale * 100;
  const text = percent < 10 ? percent.toFixed(1) : String(Math.round(percent));
  element("zoom-level").textContent = `${text}\u2009%`;
  placeBrush();
  display.refresh();
}

// Controls ------------------------------------------------------------------------------------

/** Brings buttons, cursor and painting to the state. */
function update() {
  if (!timeline.current) return;
  const { photograph, strokes } = timeline.current;
  const allow = (id, isAllowed) => element(id).setAttribute("aria-disabled", String(!isAllowed));
  allow("undo", !running && timeline.canUndo);
  allow("redo", !running && timeline.canRedo);
  allow("clear", !running && strokes.length > 0);
  allow("compare", !running && isResult(photograph));
  allow("download", isResult(photograph));
  allow("open", !running);
  allow("run", running || isPainted());
  element("compare").setAttribute("aria-pressed", String(display.split !== null));
  for (const button of document.querySelectorAll("[data-tool]")) {
    const isPressed = button.dataset.tool === tool && display.split === null;
    button.setAttribute("aria-pressed", String(isPressed));
  }
  document.body.toggleAttribute("data-running", Boolean(running));
  stage.setAttribute("aria-busy", String(Boolean(running)));
  element("run-label").textContent = running ? "Cancel" : "Fill";
  element("run").dataset.tip = running ? "Stop" : "Fill what is painted";
  element("run").dataset.key = running ? "Esc" : "Enter";
  stage.dataset.cursor = isSpaceDown
    ? "grab"
    : running
      ? "wait"
      : display.split !== null
        ? "split"
        : isDrawn()
          ? "ring"
          : "cross";
  updateZoom();
}

const ACTIONS = {
  open: () => (running ? sayBusy() : element("file-input").click()),
  pick: () => element("file-input").click(),
  compare: () => compare(display.split === null),
  download,
  help: () => element("keys").showModal(),
  undo,
  redo,
  clear,
  run: () => (running ? cancel() : run()),
  "zoom-in": () => zoom(ZOOM_STEP),
  "zoom-out": () => zoom(1 / ZOOM_STEP),
  "zoom-fit": fit,
  dismiss: hush,
};

for (const [id, action] of Object.entries(ACTIONS)) {
  element(id).addEventListener("click", (event) => {
    action();
    // After a click the keys belong to the photograph again; after a key the focus stays.
    if (event.detail > 0 && !document.querySelector("dialog[open]")) {
      stage.focus({ preventScroll: true });
    }
  });
}

for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", (event) => {
    setTool(button.dataset.tool);
    if (event.detail > 0) stage.focus({ preventScroll: true });
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      const response = await fetch(button.dataset.sample);
      if (!response.ok) throw new Error(`The server answered with status ${response.status}.`);
      await openPhotograph(await response.blob(), button.dataset.name);
    } catch (error) {
      complain(error.message);
    }
  });
}

element("size").addEventListener("input", (event) => {
  setSize(largestSize() ** (Number(event.target.value) / 1000));
  showSize();
});
element("size").addEventListener("pointerup", () => stage.focus({ preventScroll: true }));

element("file-input").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) openPhotograph(file, file.name);
});

// Paste and drop ------------------------------------------------------------------------------

// Some systems paste at a click of the middle button: nobody who did that is waiting for an answer.
let isPasteKeyDown = false;
document.addEventListener("keydown", ({ key, ctrlKey, metaKey }) => {
  isPasteKeyDown = key.toLowerCase() === "v" && (ctrlKey || metaKey);
});
document.addEventListener("keyup", () => {
  isPasteKeyDown = false;
});

document.addEventListener("paste", (event) => {
  if (event.target.matches?.("input") || document.querySelector("dialog[open]")) return;
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) =>
    type.startsWith("image/"),
  );
  if (file) openPhotograph(file, file.name === "image.png" ? "pasted.png" : file.name);
  else if (isPasteKeyDown) say("There is no photograph in the clipboard.");
});

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

document.addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = false;
});
document.addEventListener("dragover", (event) => {
  if (carriesFiles(event)) event.preventDefault();
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) openPhotograph(file, file.name);
});

// Token and model -----------------------------------------------------------------------------

let afterToken = null;

function askForToken(then) {
  afterToken = then;
  element("token-error").hidden = !token.get();
  element("token").value = "";
  token.clear();
  element("token-dialog").showModal();
}

element("token-dialog").addEventListener("close", async (event) => {
  const value = element("token").value.trim();
  if (event.target.returnValue !== "use" || !value) return;
  event.target.returnValue = "";
  token.set(value);
  const isAccepted = await describe();
  if (afterToken) afterToken();
  else if (!isAccepted) askForToken(null);
});

/** The models of the package, as people call what they are for. */
const PURPOSES = {
  faces: {
    label: "Portrait",
    text: "This server fills portraits: one face, upright and from the front.",
  },
  photo: {
    label: "Everything else",
    text: "Streets, buildings and landscapes work best. Large faces do not.",
  },
};

/** Lets one choose where there is something to choose from. */
function offerModels(offered) {
  const choice = element("model-choice");
  const chosen = choice.value;
  models = offered;
  choice.replaceChildren(...models.map(({ model }) => new Option(labelOf(model), model)));
  if (models.some(({ model }) => model === chosen)) choice.value = chosen;
  element("choice").hidden = models.length < 2;
  describeChosen();
}

function labelOf(name) {
  const known = models.every(({ model }) => model in PURPOSES);
  return known ? PURPOSES[name].label : name.replace(/\.onnx$/, "");
}

function describeChosen() {
  const model = models[Math.max(0, element("model-choice").selectedIndex)];
  const name = model.name ? `“${model.name}”, ` : "";
  const data = model.data ?? model.dataset;
  const words = `${name}${model.method} ${model.preset}, trained on ${data} at ${model.training_size} pixels`;
  const purpose = PURPOSES[model.model]?.text ?? "";
  element("model").textContent =
    models.length > 1 ? "Choose at the top what your photograph shows." : purpose;
  element("about").textContent =
    `This server runs ${words}, on ${model.provider.replace("ExecutionProvider", "")}.`;
}

element("model-choice").addEventListener("change", describeChosen);

/** Says on the page what the server runs; returns whether it told. */
async function describe() {
  const line = element("model");
  try {
    const model = await describeModel();
    limits = model.limits ?? {};
    offerModels(model.models ?? [model]);
    return true;
  } catch (error) {
    if (error.status !== 401) return false; // it is told when a photograph cannot be filled
    const button = document.createElement("button");
    button.className = "link";
    button.type = "button";
    button.textContent = "It asks for a token.";
    button.addEventListener("click", () => askForToken(null));
    line.replaceChildren(button);
    return false;
  }
}

// ---------------------------------------------------------------------------------------------

window.addEventListener("beforeunload", (event) => {
  const photograph = timeline.current?.photograph;
  if (photograph && isResult(photograph) && photograph !== saved) event.preventDefault();
});

new ResizeObserver(() => {
  if (!stage.hidden) {
    measure();
    updateZoom();
  }
}).observe(document.documentElement);

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd")) {
    if (key.textContent === "Ctrl") key.textContent = "⌘";
  }
  for (const button of document.querySelectorAll("[data-key]")) {
    button.dataset.key = button.dataset.key.replace("Ctrl", "⌘");
  }
}

describe();
