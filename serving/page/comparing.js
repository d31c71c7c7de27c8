/** The slider between before and after; another tool ends it. */

import { display, editor, element, stage, timeline, viewport } from "./editor.js";
import { t } from "./language.js";
import { say } from "./notices.js";
import { abandonRectangle, endStroke } from "./painting.js";
import { isResult } from "./photographs.js";
import { update } from "./view.js";

export async function compare(isOn) {
  if (isOn === (display.split !== null)) return;
  const photograph = timeline.current?.photograph;
  if (isOn && (editor.running || editor.frame || !photograph || !isResult(photograph))) {
    if (!editor.running) say(t("Nothing is filled yet."));
    return;
  }
  endStroke();
  abandonRectangle();
  if (document.activeElement === element("divider")) stage.focus({ preventScroll: true });
  if (isOn) say(""); // it would lie over the labels of a small screen
  display.split = isOn ? 0.5 : null;
  update();
  await display.setBefore(isOn ? photograph.original : null);
}

/** Shows the original alone, without what is painted, as long as a key is down. */
export async function peek(isOn) {
  if (isOn === "peek" in document.body.dataset) return;
  if (isOn && (!timeline.current || display.split !== null)) return;
  if (isOn) document.body.dataset.peek = "";
  else delete document.body.dataset.peek;
  const { photograph } = timeline.current;
  await display.setBefore(isOn && isResult(photograph) ? photograph.original : null);
}

export function splitAt(x) {
  const { width } = timeline.current.photograph;
  setSplit(viewport.toPhotograph(x, 0)[0] / width);
}

export function setSplit(share) {
  display.split = Math.min(Math.max(share, 0), 1);
  display.refresh();
}

export function setTool(name) {
  endStroke();
  abandonRectangle();
  editor.tool = name;
  compare(false);
  update();
}

element("divider").addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 0.1 : 0.02;
  const share = {
    ArrowLeft: display.split - step,
    ArrowDown: display.split - step,
    ArrowRight: display.split + step,
    ArrowUp: display.split + step,
    PageDown: display.split - 0.1,
    PageUp: display.split + 0.1,
    Home: 0,
    End: 1,
  }[event.key];
  if (share === undefined) return;
  event.preventDefault();
  setSplit(share);
});
