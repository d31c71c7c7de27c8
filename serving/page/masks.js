/** Masks as files: opening one, saving one, growing and shrinking what is painted. */

import { editor, element, onChoice, push, timeline } from "./editor.js";
import { t } from "./language.js";
import { complain, hush, say, sayBusy } from "./notices.js";
import { show } from "./opening.js";
import { edgeStep, finishPainting } from "./painting.js";
import { stem } from "./photographs.js";
import { save } from "./saving.js";
import { fitToObject } from "./selecting.js";
import { encodeMask, MaskStroke } from "./strokes.js";

/** Whether a dropped file is a mask for the open photograph: its name has to say so. */
export const isMask = (name) => timeline.current && /(^|[^a-z])mask/i.test(stem(name));

/** Paints what a mask file marks, in place of what is painted. */
export async function openMask(blob, name) {
  if (editor.running) {
    sayBusy();
    return;
  }
  hush();
  const { photograph } = timeline.current;
  try {
    const { width, height } = photograph;
    const bitmap = await createImageBitmap(blob).catch(() => {
      throw new Error(t("{name} cannot be shown by this browser. Save the mask as PNG.", { name }));
    });
    if (bitmap.width !== width || bitmap.height !== height) {
      throw new Error(
        t(
          "{name} has {size} pixels, and the photograph {own}. A mask must have the size of its photograph.",
          { name, size: `${bitmap.width} × ${bitmap.height}`, own: `${width} × ${height}` },
        ),
      );
    }
    const stroke = MaskStroke.ofImage(bitmap);
    if (!stroke) throw new Error(t("{name} has nothing white, so it marks nothing.", { name }));
    if (photograph === timeline.current.photograph) replaceStrokes([stroke]);
    say(t("{name} is painted. White parts of a mask are filled.", { name }));
  } catch (error) {
    complain(error.message);
  }
}

/** Downloads what is painted as a PNG, white on black. */
export async function saveMask() {
  if (!finishPainting()) return;
  const { photograph, strokes } = timeline.current;
  const { blob } = await encodeMask(photograph.width, photograph.height, strokes);
  save(blob, `${stem(photograph.original.name)}-mask.png`);
}

/** Moves the edge of what is painted outwards, or inwards with a negative direction. */
export function growMask(direction) {
  if (!finishPainting()) return;
  const { photograph, strokes } = timeline.current;
  const { width, height } = photograph;
  const pixels = edgeStep(photograph);
  const stroke = MaskStroke.ofStrokes(width, height, strokes, pixels * direction);
  replaceStrokes(stroke ? [stroke] : []);
  say(
    direction > 0
      ? t("Grown by {pixels} px.", { pixels })
      : t("Shrunk by {pixels} px.", { pixels }),
  );
}

/** Paints again what was filled last. */
export function repeatMask() {
  const { photograph } = timeline.current;
  const last = editor.last;
  if (editor.running) sayBusy();
  else if (!last) say(t("Nothing is filled yet."));
  else if (last.width !== photograph.width || last.height !== photograph.height) {
    say(t("The last mask belongs to a photograph of another size."));
  } else replaceStrokes(last.strokes);
}

function replaceStrokes(strokes) {
  push({ photograph: timeline.current.photograph, strokes });
  show();
}

onChoice("mask-dialog", {
  "mask-open": () => element("mask-input").click(),
  "mask-save": saveMask,
  "mask-outline": fitToObject,
  "mask-grow": () => growMask(1),
  "mask-shrink": () => growMask(-1),
  "mask-repeat": repeatMask,
});
element("mask-input").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) openMask(file, file.name);
});
