/** What mouse, pen and fingers do on the stage. */

import { splitAt } from "./comparing.js";
import { display, editor, isDrawn, isUpToDate, stage, viewport } from "./editor.js";
import { listen } from "./gestures.js";
import { sayBusy } from "./notices.js";
import {
  abandonRectangle,
  abandonStroke,
  beginStroke,
  endRectangle,
  endStroke,
  extendStroke,
  setSize,
} from "./painting.js";
import { placeBrush, updateZoom } from "./view.js";

listen(stage, {
  wantsPan: () => editor.isSpaceDown,
  start([x, y], { shiftKey }) {
    editor.cursor = null;
    editor.point = [x, y];
    if (display.split !== null) {
      splitAt(x);
    } else if (editor.running) {
      sayBusy();
    } else if (isUpToDate()) {
      const where = viewport.toPhotograph(x, y);
      if (isDrawn()) beginStroke(...where, shiftKey);
      else editor.corner = where;
      placeBrush();
    }
  },
  move(points) {
    if (display.split !== null) {
      splitAt(points.at(-1)[0]);
    } else if (editor.stroke) {
      for (const [x, y] of points) extendStroke(...viewport.toPhotograph(x, y));
    } else if (editor.corner) {
      display.rectangle = [editor.corner, viewport.toPhotograph(...points.at(-1))];
      display.refresh();
    }
  },
  end() {
    if (editor.corner) endRectangle(display.rectangle?.[1] ?? editor.corner);
    endStroke();
  },
  cancel() {
    abandonStroke();
    abandonRectangle();
  },
  hover(where, type) {
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
