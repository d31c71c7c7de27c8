/** The state of the page, shared by its modules, and what can be said about it. */

import { Display } from "./display.js";
import { release } from "./photographs.js";
import { Timeline } from "./timeline.js";
import { Viewport } from "./viewport.js";

export const element = (id) => document.getElementById(id);
export const stage = element("stage");
export const timeline = new Timeline();
export const viewport = new Viewport();
export const display = new Display(viewport);

export const editor = {
  tool: "brush",
  size: 32, // of the brush, in pixels of the photograph
  stroke: null, // the one that is being painted
  corner: null, // where the rectangle in the making began
  point: null, // where the pointer is, in CSS pixels of the stage
  cursor: null, // where the arrow keys have moved the brush, in pixels of the photograph
  end: null, // where the last stroke ended, in pixels of the photograph
  last: null, // width, height and strokes of what was filled last
  frame: null, // left, top, right and bottom of the canvas in the making, in pixels
  isSpaceDown: false,
  running: null, // an AbortController
  limits: {}, // of the server
  models: [], // of the server
  outputDir: "", // where the server saves every result
  saved: new WeakSet(), // the photographs that were downloaded
  shown: null, // the photograph that is on the screen
};

/** Calls what was chosen in a dialog when it closes: its `returnValue` -> a function. */
export function onChoice(dialog, actions) {
  element(dialog).addEventListener("close", ({ target }) => {
    const action = actions[target.returnValue];
    target.returnValue = "";
    action?.();
  });
}

/** The photographs of the session: the file that each came as -> its last state. */
export const album = new Map();

/**
 * Makes a state current: `photograph`, `strokes`, and for a result how it was `made`: the `photograph`
 * that was filled, its `strokes` and the `seed`. Lets go of photographs that nothing leads back to.
 */
export function push(state) {
  const before = photographs();
  timeline.push(state);
  remember();
  const after = photographs();
  for (const photograph of before) {
    if (!after.has(photograph)) release(photograph);
  }
}

/** Notes in the album what has become of the current photograph. */
export function remember() {
  const { current } = timeline;
  album.set(current.photograph.source, current);
}

function photographs() {
  const states = [...timeline.states, ...album.values()];
  return new Set(
    states
      .flatMap(({ photograph, made }) => [photograph, photograph.original, made?.photograph])
      .filter(Boolean),
  );
}

export const isPainted = () => timeline.current.strokes.some((one) => !one.erases);

export const isDrawn = () => !["rectangle", "select"].includes(editor.tool);

export const hasSize = () => isDrawn() && editor.tool !== "lasso";

/** Whether what is seen is what would be painted on. */
export const isUpToDate = () => editor.shown === timeline.current.photograph;
