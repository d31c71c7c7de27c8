/** Has what is painted filled by the server. */

import { canVary, chosen, fail } from "./access.js";
import { inpaint } from "./api.js";
import { compare } from "./comparing.js";
import { display, editor, element, isPainted, push, timeline } from "./editor.js";
import { t } from "./language.js";
import { complain, hush, say } from "./notices.js";
import { show } from "./opening.js";
import { abandonRectangle, endStroke } from "./painting.js";
import { checkLimits, read, stem } from "./photographs.js";
import { settings } from "./settings.js";
import { encodeMask } from "./strokes.js";
import { update } from "./view.js";

/**
 * Fills what is painted, or else gives the last result another variant; returns whether it was
 * filled.
 */
export async function run() {
  if (editor.running || editor.frame || !timeline.current) return false;
  endStroke();
  abandonRectangle();
  hush();
  const isAnother = canVary();
  if (!isPainted() && !isAnother) {
    say(t("Nothing is painted yet. Paint over what should go."));
    return false;
  }
  compare(false);
  const { photograph, strokes } = isAnother ? timeline.current.made : timeline.current;
  const seed = isAnother ? timeline.current.made.seed + 1 : 0;
  const { hasVariants, ...options } = chosen();
  if (hasVariants) options.seed = seed;
  const controller = (editor.running = new AbortController());
  const { signal } = controller;
  const since = performance.now();
  const clock = setInterval(() => {
    element("run-time")?.replaceChildren(` ${Math.round((performance.now() - since) / 1000)} s`);
  }, 1000);
  say(t("Filling…"), { lasts: true, clock: true });
  display.shimmer(true);
  update();
  try {
    checkLimits(photograph, editor.limits);
    const mask = await encodeMask(photograph.width, photograph.height, strokes);
    signal.throwIfAborted();
    if (mask.holePixels === 0) {
      say(t("The eraser removed all paint. Paint over what should go."));
      return false;
    }
    const answer = await inpaint(photograph.blob, photograph.name, mask.blob, {
      ...options,
      signal,
      onWait: (seconds) =>
        say(t("The server is busy. Next try in {seconds} s.", { seconds }), { lasts: true }),
      onProgress: showProgress,
    });
    const name = `${stem(photograph.original.name)}.png`;
    const result = await read(answer.blob, name, photograph.original);
    signal.throwIfAborted();
    editor.last = { width: photograph.width, height: photograph.height, strokes };
    push({ photograph: result, strokes: [], made: { photograph, strokes, seed } });
    await show({ fades: true });
    const seconds = (answer.milliseconds || performance.now() - since) / 1000;
    const took = seconds < 0.1 ? "< 0.1" : seconds.toFixed(seconds < 10 ? 1 : 0);
    say(
      answer.saved
        ? t("Filled in {took} s, saved as {name}.", { took, name: answer.saved })
        : t("Filled in {took} s. Paint again, compare or download.", { took }),
    );
    if (editor.outputDir && !answer.saved) {
      complain(
        t("The server could not save this result in {folder}. Download it.", {
          folder: editor.outputDir,
        }),
      );
    }
    return true;
  } catch (error) {
    if (signal.aborted) say(isAnother ? t("Filled.") : t("Cancelled. Your painting is still here."));
    else fail(error, run);
  } finally {
    clearInterval(clock);
    element("progress").hidden = true;
    if (editor.running === controller) editor.running = null;
    display.shimmer(false);
    update();
  }
  return false;
}

/** Fills what has just been painted, if that is how it is set. */
export function fillOnRelease() {
  if (settings.fillOnRelease && isPainted() && !editor.stroke) run();
}

const STATES = {
  receiving: () => t("Sending the photograph…"),
  waiting: () => t("Waiting for other photographs…"),
  running: () => t("Filling…"),
};

/** Shows how far the server is; with several windows, how many are filled. */
function showProgress({ state, windows, windows_done: done }) {
  if (windows > 1) {
    element("progress-bar").max = windows;
    element("progress-bar").value = done;
    element("progress-text").textContent = t("{done} of {windows} parts filled", {
      done,
      windows,
    });
    element("progress").hidden = false;
  }
  const text = STATES[state]();
  if (!element("status").textContent.startsWith(text)) {
    say(text, { lasts: true, clock: true });
  }
}

export function cancel() {
  editor.running?.abort();
}
