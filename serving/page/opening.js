/** Which photograph is shown: opening one, undo and redo. */

import { fail } from "./access.js";
import { compare } from "./comparing.js";
import {
  album,
  display,
  editor,
  element,
  push,
  remember,
  stage,
  timeline,
  viewport,
} from "./editor.js";
import { t } from "./language.js";
import { complain, hush, say, sayBusy } from "./notices.js";
import { abandonRectangle, defaultSize, endStroke, setSize } from "./painting.js";
import { checkLimits, isResult, readAny, shorten } from "./photographs.js";
import { measure, update } from "./view.js";

let opening = 0;

/**
 * Opens files: the first that can be shown is, the others are in the list of photographs. What was
 * open before is one step back.
 */
export async function openPhotographs(files) {
  if (editor.running) {
    sayBusy();
    return;
  }
  const turn = (opening += 1);
  hush();
  let count = 0;
  const failed = new Map();
  for (const file of files) {
    try {
      const photograph = await readPhotograph(file);
      const isShown = !count && turn === opening && !editor.running;
      count += 1;
      if (isShown) await begin(photograph);
      else album.set(photograph.source, { photograph, strokes: [] });
    } catch (error) {
      failed.set(file, error);
    }
  }
  const errors = [...failed.values()];
  const asks = errors.find(({ status }) => status === 401);
  if (asks || errors.length === 1) {
    fail(asks ?? errors[0], () => openPhotographs([...failed.keys()]));
  } else if (errors.length) {
    complain(errors.map(({ message }) => message).join(" "));
  } else if (count > 1) {
    say(t("{count} photographs are open.", { count }));
  }
  update();
}

/** Shows a photograph that is new. */
async function begin(photograph) {
  endStroke();
  abandonRectangle();
  const before = timeline.current?.photograph;
  push({ photograph, strokes: [] });
  if (before?.width !== photograph.width || before.height !== photograph.height) {
    editor.size = defaultSize(photograph);
  }
  await show();
  stage.focus({ preventScroll: true });
  const name = shorten(photograph.name);
  say(t("{name} is open. Paint over what should go.", { name }));
}

async function readPhotograph(file) {
  const { name, type } = file;
  if (type && !type.startsWith("image/")) {
    throw new Error(t("{name} is not a photograph.", { name }));
  }
  const photograph = await readAny(file, editor.limits);
  checkLimits(photograph, editor.limits);
  return photograph;
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
  editor.frame = display.frame = null;
  await display.showPhotograph(photograph, fades);
  if (state !== timeline.current) return; // a later step is being shown already
  display.strokes = strokes;
  const isOther = editor.shown?.original !== photograph.original;
  editor.shown = photograph;
  update(); // the toolbar may have been hidden, and is measured now
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
  const before = timeline.current;
  const state = step();
  remember();
  await show();
  if (state !== timeline.current) return;
  const { photograph } = state;
  const { width, height, source } = before.photograph;
  if (photograph === before.photograph) return;
  if (photograph.source !== source) {
    say(t("Back to {name}.", { name: shorten(photograph.original.name) }));
  } else if (photograph.width !== width || photograph.height !== height) {
    say(t("The canvas has {width} × {height} pixels.", photograph));
  } else {
    const isBefore = before.made?.photograph === photograph || !isResult(photograph);
    say(isBefore ? t("Before it was filled.") : t("Filled."));
  }
}

export function clear() {
  if (editor.running || !timeline.current?.strokes.length) return;
  endStroke();
  push({ photograph: timeline.current.photograph, strokes: [] });
  show();
}
