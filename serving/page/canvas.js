/** A larger canvas, or a crop: a frame around the photograph whose sides are dragged or typed. */

import { fail } from "./access.js";
import { convert } from "./api.js";
import { compare } from "./comparing.js";
import { display, editor, element, push, stage, timeline, viewport } from "./editor.js";
import { run } from "./filling.js";
import { t } from "./language.js";
import { hush, say, sayBusy } from "./notices.js";
import { show } from "./opening.js";
import { abandonRectangle, endStroke } from "./painting.js";
import { checkLimits, isResult, read } from "./photographs.js";
import { RectangleStroke } from "./strokes.js";
import { measure, update, updateZoom } from "./view.js";

const form = element("canvas-form");
const SIDES = ["left", "top", "right", "bottom"];
const ROOM = 0.8; // of the fitting zoom, so that the border can be dragged outwards

/** Shows the frame, or takes it away. */
export function editCanvas(isOn) {
  if (isOn === Boolean(editor.frame) || !timeline.current) return;
  if (editor.running) {
    sayBusy();
    return;
  }
  endStroke();
  abandonRectangle();
  compare(false);
  const { width, height } = timeline.current.photograph;
  setFrame(isOn ? [0, 0, width, height] : null);
  update();
  measure();
  viewport.fit();
  if (isOn) {
    viewport.zoomAtCentre(ROOM);
    form.left.select();
  } else {
    stage.focus({ preventScroll: true });
  }
  updateZoom();
}

function setFrame(frame) {
  editor.frame = display.frame = frame;
  if (frame) {
    const { width, height } = timeline.current.photograph;
    const gains = [-frame[0], -frame[1], frame[2] - width, frame[3] - height];
    SIDES.forEach((side, index) => {
      if (form[side].valueAsNumber !== gains[index]) form[side].value = gains[index];
    });
    element("canvas-size").textContent = `${frame[2] - frame[0]} × ${frame[3] - frame[1]}`;
  }
  display.refresh();
}

form.addEventListener("input", () => {
  const { width, height } = timeline.current.photograph;
  const [left, top, right, bottom] = SIDES.map((side) => Math.round(form[side].valueAsNumber));
  const frame = [-left, -top, width + right, height + bottom];
  if (!frame.every(Number.isFinite)) return;
  setFrame(frame);
  viewport.include(frame);
  updateZoom();
});

/** Cuts the photograph to the frame, and fills what is new. */
async function apply() {
  hush();
  if (!editor.frame || editor.running) return; // left since a message offered to try again
  const { photograph } = timeline.current;
  const { width, height } = photograph;
  const [left, top, right, bottom] = editor.frame;
  try {
    if (
      Math.min(right, width) <= Math.max(left, 0) ||
      Math.min(bottom, height) <= Math.max(top, 0)
    ) {
      throw new Error(t("Nothing of the photograph would be left. Use smaller negative numbers."));
    }
    const size = { width: right - left, height: bottom - top };
    checkLimits({ name: t("The new canvas"), ...size }, editor.limits);
    if (left || top || right !== width || bottom !== height) await change(photograph, size);
    else editCanvas(false);
  } catch (error) {
    fail(error, apply);
  }
}

async function change(photograph, size) {
  const crop = editor.frame;
  const isNew = isResult(photograph);
  const cut = async (one, original = null) =>
    read(await convert(one.blob, one.name, { crop, format: "png" }), one.name, original);
  editor.running = new AbortController();
  say(t("Changing the canvas…"), { lasts: true });
  update();
  try {
    const original = await cut(photograph.original);
    original.source = photograph.source;
    original.frame = within(photograph.original.frame, crop);
    const result = isNew ? await cut(photograph, original) : original;
    push({ photograph: result, strokes: newParts(photograph, crop, size) });
    editor.running = null;
    await show();
    say(t("The canvas has {width} × {height} pixels.", size));
  } finally {
    editor.running = null;
    update();
  }
  if (timeline.current.strokes.length) await run();
}

/** A frame inside another one's coordinates, in those of the file. */
const within = (outer, [left, top, right, bottom]) => {
  const [x, y] = outer ?? [0, 0];
  return [left + x, top + y, right + x, bottom + y];
};

/** Rectangles over what a frame adds to a photograph. */
function newParts({ width: oldWidth, height: oldHeight }, [left, top], { width, height }) {
  const [x0, y0] = [Math.max(0, -left), Math.max(0, -top)];
  const [x1, y1] = [Math.min(width, oldWidth - left), Math.min(height, oldHeight - top)];
  return [
    [0, 0, width, y0],
    [0, y1, width, height],
    [0, y0, x0, y1],
    [x1, y0, width, y1],
  ]
    .filter(([x, y, endX, endY]) => endX > x && endY > y)
    .map((box) => new RectangleStroke(...box));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
element("canvas-cancel").addEventListener("click", () => editCanvas(false));
form.addEventListener("keydown", (event) => {
  if (event.key === "Escape") editCanvas(false);
});

// Each handle moves one side of the frame, or two at a corner.
for (const sides of ["0", "1", "2", "3", "01", "12", "23", "03"]) {
  const handle = document.createElement("div");
  handle.dataset.sides = sides;
  handle.addEventListener("pointerdown", (event) => {
    event.stopPropagation(); // it moves the frame, and not the photograph
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    event.stopPropagation();
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const area = stage.getBoundingClientRect();
    const at = viewport.toPhotograph(event.clientX - area.left, event.clientY - area.top);
    const frame = [...editor.frame];
    for (const side of sides) {
      const axis = side % 2;
      const other = frame[(Number(side) + 2) % 4];
      const value = Math.round(at[axis]);
      frame[side] = side < 2 ? Math.min(value, other - 1) : Math.max(value, other + 1);
    }
    setFrame(frame);
  });
  element("canvas-frame").append(handle);
}
