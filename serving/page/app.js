/** The page: its buttons, and the ways in by paste and drop. */

import { describe } from "./access.js";
import { compare, setTool } from "./comparing.js";
import { display, editor, element, stage, timeline } from "./editor.js";
import { cancel, run } from "./filling.js";
import "./keys.js";
import { isMask, openMask } from "./masks.js";
import { complain, hush, say } from "./notices.js";
import { chooseFile, clear, openPhotograph, redo, undo } from "./opening.js";
import { largestSize, setSize, showSize } from "./painting.js";
import { isResult } from "./photographs.js";
import "./pointer.js";
import { chooseFormat, download } from "./saving.js";
import { fit, measure, updateZoom, zoom, ZOOM_STEP } from "./view.js";

// Controls ------------------------------------------------------------------------------------

const ACTIONS = {
  open: chooseFile,
  pick: chooseFile,
  compare: () => compare(display.split === null),
  download,
  "download-as": chooseFormat,
  help: () => element("keys").showModal(),
  undo,
  redo,
  clear,
  run: () => (editor.running ? cancel() : run()),
  mask: () => element("mask-dialog").showModal(),
  "zoom-in": () => zoom(ZOOM_STEP),
  "zoom-out": () => zoom(1 / ZOOM_STEP),
  "zoom-fit": fit,
  dismiss: hush,
};

for (const [id, action] of Object.entries(ACTIONS)) {
  element(id).addEventListener("click", (event) => {
    action();
    // After a click the keys belong to the photograph again; after a key the focus stays.
    if (event.detail > 0 && !document.querySelector("dialog[open]")) {
      stage.focus({ preventScroll: true });
    }
  });
}

for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", (event) => {
    setTool(button.dataset.tool);
    if (event.detail > 0) stage.focus({ preventScroll: true });
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      const response = await fetch(button.dataset.sample);
      if (!response.ok) throw new Error(`The server answered with status ${response.status}.`);
      await openPhotograph(await response.blob(), button.dataset.name);
    } catch (error) {
      complain(error.message);
    }
  });
}

element("size").addEventListener("input", (event) => {
  setSize(largestSize() ** (Number(event.target.value) / 1000));
  showSize();
});
element("size").addEventListener("pointerup", () => stage.focus({ preventScroll: true }));

element("file-input").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) openPhotograph(file, file.name);
});

// Paste and drop ------------------------------------------------------------------------------

// Some systems paste at a click of the middle button: nobody who did that is waiting for an answer.
let isPasteKeyDown = false;
document.addEventListener("keydown", ({ key, ctrlKey, metaKey }) => {
  isPasteKeyDown = key.toLowerCase() === "v" && (ctrlKey || metaKey);
});
document.addEventListener("keyup", () => {
  isPasteKeyDown = false;
});

document.addEventListener("paste", (event) => {
  if (event.target.matches?.("input") || document.querySelector("dialog[open]")) return;
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) =>
    type.startsWith("image/"),
  );
  if (file) openPhotograph(file, file.name === "image.png" ? "pasted.png" : file.name);
  else if (isPasteKeyDown) say("There is no photograph in the clipboard.");
});

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

document.addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = false;
});
document.addEventListener("dragover", (event) => {
  if (carriesFiles(event)) event.preventDefault();
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (!file) return;
  if (isMask(file.name)) openMask(file, file.name);
  else openPhotograph(file, file.name);
});

// ---------------------------------------------------------------------------------------------

window.addEventListener("beforeunload", (event) => {
  const photograph = timeline.current?.photograph;
  if (photograph && isResult(photograph) && photograph !== editor.saved) event.preventDefault();
});

new ResizeObserver(() => {
  if (!stage.hidden) {
    measure();
    updateZoom();
  }
}).observe(document.documentElement);

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd")) {
    if (key.textContent === "Ctrl") key.textContent = "⌘";
  }
  for (const button of document.querySelectorAll("[data-key]")) {
    button.dataset.key = button.dataset.key.replace("Ctrl", "⌘");
  }
}

describe();
