/** Strokes, rectangles and the size of the brush. */

import {
  display,
  editor,
  element,
  hasSize,
  isPainted,
  push,
  timeline,
  viewport,
} from "./editor.js";
import { t } from "./language.js";
import { say, sayBusy } from "./notices.js";
import { BrushStroke, LassoStroke } from "./strokes.js";
import { placeBrush, update } from "./view.js";

const SIZE_STEP = 1.2;
const EDGE_STEP = 0.005; // of the photograph's shorter side that growing and shrinking move an edge by
const CORNER_REACH = 10; // CSS pixels

/** Begins a stroke, with `isLine` by a straight line from where the last one ended. */
export function beginStroke(x, y, isLine = false) {
  const from = isLine && editor.end && hasSize() ? editor.end : [x, y];
  editor.stroke =
    editor.tool === "lasso"
      ? new LassoStroke(x, y)
      : new BrushStroke(editor.size, editor.tool === "eraser", ...from);
  display.strokes = [...timeline.current.strokes, editor.stroke];
  extendStroke(x, y);
}

export function extendStroke(x, y) {
  editor.stroke.extend(x, y);
  if (editor.stroke.isArea) display.refresh();
  else display.addFresh(editor.stroke);
}

export function endStroke() {
  if (!editor.stroke) return;
  const finished = editor.stroke.finish();
  editor.end = editor.stroke.end;
  editor.stroke = null;
  // An eraser that touches nothing is no step to undo, nor is a lasso around nothing.
  if (!finished || (finished.erases && !isPainted())) display.strokes = timeline.current.strokes;
  else addStroke(finished);
  update();
}

/** Leaves a lasso open after a click: the next clicks are corners. */
export function leaveOpen() {
  if (!editor.stroke.isOpen) say(t("Click the next corner. Enter or the first corner closes."));
  editor.stroke.isOpen = true;
}

/** Adds a corner to an open lasso; one at the first or the last corner closes it. */
export function addCorner(x, y) {
  const { stroke } = editor;
  const isAt = (corner) => Math.hypot(x - corner[0], y - corner[1]) * viewport.scale < CORNER_REACH;
  if (stroke.corners > 1 && (isAt(stroke.start) || isAt(stroke.end))) {
    endStroke();
  } else {
    stroke.corners += 1;
    extendStroke(x, y);
  }
}

export function addStroke(finished) {
  const { photograph, strokes } = timeline.current;
  push({ photograph, strokes: [...strokes, finished] });
  display.strokes = timeline.current.strokes;
}

export function abandonStroke() {
  editor.stroke = null;
  display.strokes = timeline.current?.strokes ?? [];
  display.refresh();
}

export function abandonRectangle() {
  editor.corner = display.rectangle = null;
  display.refresh();
}

/** Ends what is being painted; whether there is a mask to work on. */
export function finishPainting() {
  endStroke();
  abandonRectangle();
  if (editor.running) sayBusy();
  else if (!isPainted()) say(t("Nothing is painted yet. Paint over what should go."));
  else return true;
  return false;
}

/** By how many pixels an edge moves outwards or inwards. */
export const edgeStep = ({ width, height }) =>
  Math.max(1, Math.round(Math.min(width, height) * EDGE_STEP));

export const defaultSize = ({ width, height }) =>
  Math.max(6, Math.round(Math.min(width, height) * 0.08));

export function largestSize() {
  const { width, height } = timeline.current.photograph;
  return Math.max(32, Math.round(Math.min(width, height) / 2));
}

export function setSize(pixels) {
  editor.size = Math.min(Math.max(Math.round(pixels), 1), largestSize());
  const input = element("size");
  input.value = Math.round((Math.log(editor.size) / Math.log(largestSize())) * 1000);
  input.setAttribute("aria-valuetext", `${editor.size} px`);
  element("size-value").textContent = `${editor.size} px`;
  placeBrush();
}

export function changeSize(direction) {
  const next = Math.round(editor.size * SIZE_STEP ** direction);
  setSize(next === editor.size ? editor.size + direction : next);
  showSize();
}

/** Shows the size in the middle for a moment when there is no brush to see it by. */
export function showSize() {
  if (editor.point || editor.cursor || !hasSize()) return;
  const box = element("picture").getBoundingClientRect();
  const x = box.left + box.width / 2;
  const y = box.top + box.height / 2;
  display.brush = { x, y, size: editor.size * viewport.scale };
  display.placeBrush();
  clearTimeout(showSize.timer);
  showSize.timer = setTimeout(placeBrush, 900);
}
