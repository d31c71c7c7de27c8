/** What mouse, pen and fingers do on the stage. */

import { splitAt } from "./comparing.js";
import { display, editor, isDrawn, isUpToDate, stage, viewport } from "./editor.js";
import { fillOnRelease } from "./filling.js";
import { listen } from "./gestures.js";
import { t } from "./language.js";
import { say, sayBusy } from "./notices.js";
import {
  abandonRectangle,
  abandonStroke,
  addCorner,
  beginStroke,
  endStroke,
  extendStroke,
  leaveOpen,
  setSize,
} from "./painting.js";
import { endRectangle } from "./selecting.js";
import { placeBrush, updateZoom } from "./view.js";

const CLICK_REACH = 4; // CSS pixels that a click may move by

let begun = [0, 0];
let isClick = true; // so far

listen(stage, {
  wantsPan: () => editor.isSpaceDown,
  start([x, y], { shiftKey }) {
    editor.cursor = null;
    editor.point = begun = [x, y];
    isClick = true;
    if (editor.frame) return;
    if (display.split !== null) {
      splitAt(x);
    } else if (editor.running) {
      sayBusy();
    } else if (isUpToDate()) {
      const where = viewport.toPhotograph(x, y);
      if (editor.stroke?.isOpen) addCorner(...where);
      else if (isDrawn()) beginStroke(...where, shiftKey);
      else editor.corner = where;
      placeBrush();
    }
  },
  move(points) {
    const isFar = ([x, y]) => Math.hypot(x - begun[0], y - begun[1]) >= CLICK_REACH;
    if (points.some(isFar)) isClick = false;
    if (display.split !== null) {
      splitAt(points.at(-1)[0]);
    } else if (editor.stroke && !editor.stroke.isOpen) {
      for (const [x, y] of points) extendStroke(...viewport.toPhotograph(x, y));
    } else if (editor.corner) {
      display.rectangle = [editor.corner, viewport.toPhotograph(...points.at(-1))];
      display.refresh();
    }
  },
  end() {
    const { stroke, corner } = editor;
    if (!stroke && !corner) return;
    if (corner && isClick) {
      abandonRectangle();
      if (editor.tool === "select") say(t("Select an object: drag a box around it"));
      return;
    }
    if (corner) endRectangle(display.rectangle?.[1] ?? corner);
    if (stroke?.isOpen || (stroke?.isArea && isClick)) {
      leaveOpen();
      return;
    }
    endStroke();
    if (!stroke?.erases && editor.tool !== "select") fillOnRelease();
  },
  cancel() {
    if (!editor.stroke?.isOpen) abandonStroke();
    abandonRectangle();
  },
  hover(where, type) {
    if (editor.stroke?.isOpen && where) {
      editor.stroke.hint = viewport.toPhotograph(...where);
      display.refresh();
    }
    if (type === "touch") {
      editor.point = editor.stroke ? where : null;
    } else {
      editor.point = where;
      if (where) editor.cursor = null;
    }
    placeBrush();
  },
  pan(dx, dy) {
    viewport.pan(dx, dy);
    display.refresh();
  },
  resize(factor) {
    const size = editor.size * factor;
    setSize(Math.round(size) === editor.size ? editor.size + Math.sign(factor - 1) : size);
  },
  zoom([x, y], factor) {
    viewport.zoomAt(x, y, factor);
    updateZoom();
  },
});
