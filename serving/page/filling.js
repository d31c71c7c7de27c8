/** Has what is painted filled by the server. */

import { askForToken } from "./access.js";
import { inpaint } from "./api.js";
import { compare } from "./comparing.js";
import { display, editor, element, isPainted, push, timeline } from "./editor.js";
import { complain, hush, say } from "./notices.js";
import { show } from "./opening.js";
import { abandonRectangle, endStroke } from "./painting.js";
import { checkLimits, read, stem } from "./photographs.js";
import { encodeMask } from "./strokes.js";
import { update } from "./view.js";

export async function run() {
  if (editor.running || !timeline.current) return;
  endStroke();
  abandonRectangle();
  if (!isPainted()) {
    say("Nothing is painted yet. Paint over what should go.");
    return;
  }
  compare(false);
  hush();
  const { photograph, strokes } = timeline.current;
  const controller = (editor.running = new AbortController());
  const { signal } = controller;
  const since = performance.now();
  const clock = setInterval(() => {
    element("run-time")?.replaceChildren(` ${Math.round((performance.now() - since) / 1000)} s`);
  }, 1000);
  say("Filling…", { lasts: true, clock: true });
  display.shimmer(true);
  update();
  try {
    checkLimits(photograph, editor.limits);
    const mask = await encodeMask(photograph.width, photograph.height, strokes);
    signal.throwIfAborted();
    if (mask.holePixels === 0) {
      say("The eraser removed all paint. Paint over what should go.");
      return;
    }
    const { blob, milliseconds } = await inpaint(photograph.blob, photograph.name, mask.blob, {
      model: editor.models.length > 1 ? element("model-choice").value : "",
      signal,
      onWait: (seconds) => say(`The server is busy. Next try in ${seconds} s.`, { lasts: true }),
      onProgress: showProgress,
    });
    const name = `${stem(photograph.original.name)}.png`;
    const result = await read(blob, name, photograph.original);
    signal.throwIfAborted();
    editor.last = { width: photograph.width, height: photograph.height, strokes };
    push({ photograph: result, strokes: [] });
    await show({ fades: true });
    const seconds = (milliseconds || performance.now() - since) / 1000;
    const took = seconds < 0.1 ? "less than 0.1" : seconds.toFixed(seconds < 10 ? 1 : 0);
    say(`Filled in ${took} s. Paint again, compare or download.`);
  } catch (error) {
    if (signal.aborted) {
      say("Cancelled. Your painting is still here.");
    } else if (error.status === 401) {
      say("");
      editor.running = null;
      askForToken(run);
    } else {
      say("");
      complain(error.message, error.isPassing ? run : null);
    }
  } finally {
    clearInterval(clock);
    element("progress").hidden = true;
    if (editor.running === controller) editor.running = null;
    display.shimmer(false);
    update();
  }
}

const STATES = {
  receiving: "Sending the photograph…",
  waiting: "Waiting for other photographs…",
  running: "Filling…",
};

/** Shows how far the server is; with several windows, how many are filled. */
function showProgress({ state, windows, windows_done: done }) {
  if (windows > 1) {
    element("progress-bar").max = windows;
    element("progress-bar").value = done;
    element("progress-text").textContent = `${done} of ${windows} parts filled`;
    element("progress").hidden = false;
  }
  if (!element("status").textContent.startsWith(STATES[state])) {
    say(STATES[state], { lasts: true, clock: true });
  }
}

export function cancel() {
  editor.running?.abort();
}
