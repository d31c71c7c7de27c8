/** What leaves the page: the filled photograph. */

import { editor, timeline } from "./editor.js";
import { say } from "./notices.js";
import { isResult, stem } from "./photographs.js";

export function download() {
  const photograph = timeline.current?.photograph;
  if (!photograph || !isResult(photograph)) {
    say("Nothing is filled yet.");
    return;
  }
  const link = document.createElement("a");
  link.href = photograph.image.src;
  link.download = `${stem(photograph.original.name)}-inpainted.png`;
  link.click();
  editor.saved = photograph;
}
