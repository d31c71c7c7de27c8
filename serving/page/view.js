/** Brings buttons, brush and zoom to the state. */

import { canVary } from "./access.js";
import {
  display,
  editor,
  element,
  hasSize,
  isPainted,
  stage,
  timeline,
  viewport,
} from "./editor.js";
import { t } from "./language.js";
import { isResult } from "./photographs.js";

export const ZOOM_STEP = 1.25;
const MARGIN = 20;

/** Brings buttons, cursor and painting to the state. */
export function update() {
  if (!timeline.current) return;
  const { photograph, strokes } = timeline.current;
  const allow = (id, isAllowed) => element(id).setAttribute("aria-disabled", String(!isAllowed));
  allow("undo", !editor.running && timeline.canUndo);
  allow("redo", !editor.running && timeline.canRedo);
  allow("clear", !editor.running && strokes.length > 0);
  allow("compare", !editor.running && isResult(photograph));
  allow("download", isResult(photograph));
  allow("download-as", isResult(photograph));
  for (const id of ["open", "album", "canvas"]) allow(id, !editor.running);
  element("toolbar").hidden = Boolean(editor.frame);
  element("canvas-form").hidden = !editor.frame;
  const isAnother = canVary();
  allow("run", editor.running || isPainted() || isAnother);
  element("compare").setAttribute("aria-pressed", String(display.split !== null));
  for (const button of document.querySelectorAll("[data-tool]")) {
    const isPressed = button.dataset.tool === editor.tool && display.split === null;
    button.setAttribute("aria-pressed", String(isPressed));
  }
  document.body.toggleAttribute("data-running", Boolean(editor.running));
  stage.setAttribute("aria-busy", String(Boolean(editor.running)));
  const [label, tip, key] = editor.running
    ? [t("Cancel"), t("Stop"), "Esc"]
    : isAnother
      ? [t("Another"), t("Fill the same area in another way"), "Enter"]
      : [t("Fill"), t("Fill what is painted"), "Enter"];
  element("run-label").textContent = label;
  Object.assign(element("run").dataset, { tip, key });
  stage.dataset.cursor =
    editor.isSpaceDown || editor.frame
      ? "grab"
      : editor.running
        ? "wait"
        : display.split !== null
          ? "split"
          : hasSize()
            ? "ring"
            : "cross";
  updateZoom();
}

/** The part of the stage that neither the bar nor the toolbar covers. */
export function measure() {
  const box = stage.getBoundingClientRect();
  const top = document.querySelector(".bar").offsetHeight + MARGIN / 2;
  const below = element(editor.frame ? "canvas-form" : "toolbar");
  const bottom = below.offsetTop - MARGIN; // where it will be, not where it rises
  const margin = Math.min(MARGIN, box.width * 0.03);
  display.setArea({
    left: margin,
    top,
    width: Math.max(40, box.width - 2 * margin),
    height: Math.max(40, bottom - top),
  });
}

/** Shows the brush in its true size where the pointer or the arrow keys are. */
export function placeBrush() {
  const isByKeys = editor.cursor && document.activeElement === stage;
  const where = isByKeys ? viewport.toStage(...editor.cursor) : editor.point;
  const isBrush = hasSize() || isByKeys;
  display.brush =
    where &&
    isBrush &&
    display.split === null &&
    !editor.isSpaceDown &&
    !editor.running &&
    !editor.frame
      ? {
          x: where[0],
          y: where[1],
          size: hasSize() ? editor.size * viewport.scale : 8,
          isDown: editor.stroke,
        }
      : null;
  display.placeBrush();
}

export function zoom(factor) {
  viewport.zoomAtCentre(factor);
  updateZoom();
}

export function fit() {
  viewport.fit();
  updateZoom();
}

export function updateZoom() {
  const percent = viewport.scale * 100;
  const text = percent < 10 ? percent.toFixed(1) : String(Math.round(percent));
  element("zoom-level").textContent = `${text}\u2009%`;
  placeBrush();
  display.refresh();
}

document.addEventListener("choice", update);
document.addEventListener("language", () => {
  update();
  if (!stage.hidden) measure();
});
