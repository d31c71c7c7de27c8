/** Selects an object: the server finds its outline in a box, or under what is painted. */

import { fail } from "./access.js";
import { select } from "./api.js";
import { compare } from "./comparing.js";
import { editor, push, timeline } from "./editor.js";
import { fillOnRelease } from "./filling.js";
import { t } from "./language.js";
import { hush, say } from "./notices.js";
import { show } from "./opening.js";
import { abandonRectangle, addStroke, edgeStep, finishPainting } from "./painting.js";
import { encodeMask, MaskStroke, RectangleStroke } from "./strokes.js";
import { update } from "./view.js";

/** Paints the rectangle that was drawn, or the object in it. */
export function endRectangle(to) {
  const { width, height } = timeline.current.photograph;
  const rectangle = RectangleStroke.between(editor.corner, to, width, height);
  abandonRectangle();
  if (rectangle && editor.tool === "select") selectBox(rectangle.box);
  else if (rectangle) addStroke(rectangle);
  update();
}

/** Paints over the object in a box. */
function selectBox(box) {
  return paintOutline({ box }, timeline.current.strokes, () => selectBox(box));
}

/** Replaces what is painted by the outline of the object under it. */
export async function fitToObject() {
  if (!finishPainting()) return;
  const { photograph, strokes } = timeline.current;
  const { blob } = await encodeMask(photograph.width, photograph.height, strokes);
  await paintOutline({ strokes: blob }, [], fitToObject);
}

async function paintOutline(hint, kept, again) {
  const { photograph } = timeline.current;
  const controller = (editor.running = new AbortController());
  compare(false);
  hush();
  say(t("Looking for the outline…"), { lasts: true });
  update();
  let isFound = false;
  try {
    const mask = await select(photograph.blob, photograph.name, hint, controller.signal);
    const outline = MaskStroke.ofImage(await createImageBitmap(mask));
    controller.signal.throwIfAborted();
    // Pixels along the outline have colors of the object too.
    const { width, height } = photograph;
    const stroke = MaskStroke.ofStrokes(width, height, [outline], edgeStep(photograph) + 1);
    push({ photograph, strokes: [...kept, stroke] });
    await show();
    say(t("Selected. Press Fill, or correct it with brush and eraser."));
    isFound = true;
  } catch (error) {
    if (controller.signal.aborted) say(t("Cancelled. Your painting is still here."));
    else fail(error, again);
  } finally {
    editor.running = null;
    update();
  }
  if (isFound) fillOnRelease();
}
