/** Which photograph is shown: opening one, undo and redo. */

import { askForToken } from "./access.js";
import { compare } from "./comparing.js";
import { display, editor, element, push, stage, timeline, viewport } from "./editor.js";
import { complain, hush, say, sayBusy } from "./notices.js";
import { abandonRectangle, defaultSize, endStroke, setSize } from "./painting.js";
import { checkLimits, isResult, readAny } from "./photographs.js";
import { measure, update } from "./view.js";

let opening = 0;

/** Opens an image file; what was open before is one step back. */
export async function openPhotograph(blob, name) {
  if (editor.running) {
    sayBusy();
    return;
  }
  const turn = (opening += 1);
  hush();
  try {
    if (blob.type && !blob.type.startsWith("image/")) {
      throw new Error(`${name} is not a photograph.`);
    }
    const photograph = await readAny(blob, name, editor.limits);
    if (turn !== opening) return;
    checkLimits(photograph, editor.limits);
    if (editor.running) {
      sayBusy(); // since it was being decoded
      return;
    }
    endStroke();
    abandonRectangle();
    const before = timeline.current?.photograph;
    push({ photograph, strokes: [] });
    if (before?.width !== photograph.width || before.height !== photograph.height) {
      editor.size = defaultSize(photograph);
    }
    await show();
    stage.focus({ preventScroll: true });
    say(`${name} is open. Paint over what should go.`);
  } catch (error) {
    if (turn !== opening) return;
    if (error.status === 401) askForToken(() => openPhotograph(blob, name));
    else complain(error.message);
  }
}

/** Brings the screen to the current state. */
export async function show({ fades = false } = {}) {
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
  const isOther = editor.shown?.original !== photograph.original;
  editor.shown = photograph;
  if (isOther) {
    viewport.setPhotograph(photograph.width, photograph.height);
    measure();
    viewport.fit();
    editor.cursor = null;
  }
  setSize(editor.size);
  const name = photograph.original.name;
  element("file-name").textContent = name;
  element("file-size").textContent = `${photograph.width} × ${photograph.height}`;
  document.title = `${name} – musical`;
  update();
}

/** Opens the system's dialog for files. */
export function chooseFile() {
  if (editor.running) sayBusy();
  else element("file-input").click();
}

export function undo() {
  if (editor.running || !timeline.canUndo) return;
  travel(() => timeline.undo());
}

export function redo() {
  if (editor.running || !timeline.canRedo) return;
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

export function clear() {
  if (editor.running || !timeline.current?.strokes.length) return;
  endStroke();
  push({ photograph: timeline.current.photograph, strokes: [] });
  show();
}
