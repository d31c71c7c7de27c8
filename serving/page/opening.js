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
import { checkLimits, isResult, readAny } from "./photographs.js";
import { measure, update } from "./view.js";

let opening = 0;

/** Opens files: the first is shown, the others are in the list of photographs. */
export async function openPhotographs(files) {
  const [first, ...others] = files;
  if (!first) return;
  await openPhotograph(first, first.name);
  const failures = [];
  for (const file of others) {
    try {
      const photograph = await readPhotograph(file, file.name);
      album.set(photograph.source, { photograph, strokes: [] });
    } catch (error) {
      failures.push(error.message);
    }
  }
  if (failures.length) complain(failures.join(" "));
  else if (others.length) say(t("{count} photographs are open.", { count: files.length }));
  update();
}

async function readPhotograph(blob, name) {
  if (blob.type && !blob.type.startsWith("image/")) {
    throw new Error(t("{name} is not a photograph.", { name }));
  }
  const photograph = await readAny(blob, name, editor.limits);
  checkLimits(photograph, editor.limits);
  return photograph;
}

/** Opens an image file; what was open before is one step back. */
export async function openPhotograph(blob, name) {
  if (editor.running) {
    sayBusy();
    return;
  }
  const turn = (opening += 1);
  hush();
  try {
    const photograph = await readPhotograph(blob, name);
    if (turn !== opening) return;
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
    say(t("{name} is open. Paint over what should go.", { name }));
  } catch (error) {
    if (turn !== opening) return;
    fail(error, () => openPhotograph(blob, name));
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
  const before = timeline.current.photograph;
  const state = step();
  remember();
  await show();
  if (state !== timeline.current) return;
  const { photograph } = state;
  if (photograph.source !== before.source)
    say(t("Back to {name}.", { name: photograph.original.name }));
  else if (photograph !== before)
    say(isResult(photograph) ? t("Filled.") : t("Before it was filled."));
}

export function clear() {
  if (editor.running || !timeline.current?.strokes.length) return;
  endStroke();
  push({ photograph: timeline.current.photograph, strokes: [] });
  show();
}
