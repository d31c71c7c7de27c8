/** What the keys do. */

import { canSelect } from "./api.js";
import { editCanvas } from "./canvas.js";
import { compare, peek, setSplit, setTool } from "./comparing.js";
import {
  display,
  editor,
  element,
  isDrawn,
  isUpToDate,
  stage,
  timeline,
  viewport,
} from "./editor.js";
import { cancel, fillOnRelease, run } from "./filling.js";
import { t } from "./language.js";
import { growMask, repeatMask } from "./masks.js";
import { hush, say, sayBusy } from "./notices.js";
import { chooseFile, clear, redo, undo } from "./opening.js";
import {
  abandonRectangle,
  abandonStroke,
  addCorner,
  beginStroke,
  changeSize,
  endStroke,
  extendStroke,
  leaveOpen,
} from "./painting.js";
import { copy, download } from "./saving.js";
import { endRectangle, fitToObject } from "./selecting.js";
import { fit, placeBrush, update, zoom, ZOOM_STEP } from "./view.js";

const KEY_STEP = 8; // CSS pixels an arrow key moves the brush by

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const KEYS = {
  b: () => setTool("brush"),
  e: () => setTool("eraser"),
  r: () => setTool("rectangle"),
  l: () => setTool("lasso"),
  m: repeatMask,
  k: () => editCanvas(true),
  p: () => peek(true),
  "{": () => growMask(-1),
  "}": () => growMask(1),
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
  enter: () => (editor.stroke?.isOpen ? endStroke() : run()),
  ...(canSelect && { s: () => setTool("select"), o: fitToObject }),
};

const KEYS_WITH_CONTROL = {
  z: undo,
  Z: redo,
  y: redo,
  s: download,
  c: copy,
  o: chooseFile,
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
    const isCopy = name === "c" && getSelection().toString();
    if (action && !event.altKey && !editor.frame && !isCopy && (timeline.current || name === "o")) {
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
  } else if (editor.frame && !["+", "=", "-", "0", "1"].includes(key)) {
    return; // the border is being dragged
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
  if (event.key.toLowerCase() === "p") peek(false);
});
window.addEventListener("blur", () => {
  releaseSpace();
  peek(false);
});

function escape() {
  if (editor.running) cancel();
  else if (editor.frame) editCanvas(false);
  else if (editor.stroke) abandonStroke();
  else if (editor.corner) abandonRectangle();
  else if (display.split !== null) compare(false);
  else hush();
}

/** With the arrow keys' brush the space bar paints; with a pointer it moves the photograph. */
function pressSpace() {
  if (!editor.cursor || display.split !== null) {
    editor.isSpaceDown = true;
    update();
  } else if (editor.running) {
    sayBusy();
  } else if (!isUpToDate()) {
    return;
  } else if (editor.stroke?.isOpen) {
    addCorner(...editor.cursor);
  } else if (isDrawn()) {
    beginStroke(...editor.cursor);
    placeBrush();
  } else if (editor.corner) {
    endRectangle(editor.cursor);
    if (editor.tool !== "select") fillOnRelease();
  } else {
    editor.corner = [...editor.cursor];
    display.rectangle = [editor.corner, editor.corner];
    display.refresh();
    say(t("First corner. Move, then press the space bar again."));
  }
}

function releaseSpace() {
  if (editor.isSpaceDown) {
    editor.isSpaceDown = false;
    update();
  } else if (editor.stroke && editor.cursor) {
    const { stroke } = editor;
    if (stroke.isOpen || (stroke.isArea && stroke.end === stroke.start)) {
      leaveOpen();
      return;
    }
    endStroke();
    placeBrush();
    if (!stroke.erases) fillOnRelease();
  }
}

function moveCursor([dx, dy], { shiftKey, altKey }) {
  const { width, height } = timeline.current.photograph;
  const step = altKey ? 1 : Math.max(1, Math.round(KEY_STEP / viewport.scale)) * (shiftKey ? 6 : 1);
  editor.cursor ??= middle();
  editor.cursor = [
    Math.min(Math.max(editor.cursor[0] + dx * step, 0), width),
    Math.min(Math.max(editor.cursor[1] + dy * step, 0), height),
  ];
  if (editor.stroke?.isOpen) {
    editor.stroke.hint = editor.cursor;
  } else if (editor.stroke) {
    extendStroke(...editor.cursor);
  } else if (editor.corner) {
    display.rectangle = [editor.corner, editor.cursor];
  }
  viewport.reveal(...viewport.toStage(...editor.cursor));
  placeBrush();
  display.refresh();
  clearTimeout(moveCursor.timer);
  moveCursor.timer = setTimeout(() => {
    if (editor.cursor)
      element("position").textContent = t("Brush at {place}", {
        place: editor.cursor.map(Math.round).join(", "),
      });
  }, 400);
}

function middle() {
  const { width, height } = timeline.current.photograph;
  return [Math.round(width / 2), Math.round(height / 2)];
}

stage.addEventListener("focus", () => {
  if (!stage.matches(":focus-visible") || !timeline.current || display.split !== null) return;
  editor.cursor ??= middle();
  placeBrush();
});
stage.addEventListener("blur", () => {
  releaseSpace();
  placeBrush();
});
