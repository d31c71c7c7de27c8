/** The page: its buttons, and the ways in by paste and drop. */

import { describe } from "./access.js";
import { showAlbum } from "./album.js";
import { editCanvas } from "./canvas.js";
import { compare, setTool } from "./comparing.js";
import { album, display, editor, element, onChoice, stage } from "./editor.js";
import { cancel, run } from "./filling.js";
import "./keys.js";
import { t, useLanguage } from "./language.js";
import { isMask, openMask } from "./masks.js";
import { complain, hush, say } from "./notices.js";
import { chooseFile, clear, openPhotographs, redo, undo } from "./opening.js";
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
  settings: () => element("settings-dialog").showModal(),
  album: showAlbum,
  canvas: () => editCanvas(true),
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
    if (event.pointerType === "touch") say(button.dataset.tip); // a finger sees no tip
    if (event.detail > 0) stage.focus({ preventScroll: true });
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      const response = await fetch(button.dataset.sample);
      if (!response.ok) throw new Error(t("The server does not answer. Is it still running?"));
      const blob = await response.blob();
      await openPhotographs([new File([blob], button.dataset.name, { type: blob.type })]);
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
  const files = [...event.target.files];
  event.target.value = ""; // so that the same files can be chosen again
  openPhotographs(files);
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
  const files = [...(event.clipboardData?.files ?? [])]
    .filter(({ type }) => type.startsWith("image/"))
    .map((file) => (file.name === "image.png" ? new File([file], "pasted.png", file) : file));
  if (files.length) openPhotographs(files);
  else if (isPasteKeyDown) say(t("There is no photograph in the clipboard."));
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
  const files = [...event.dataTransfer.files];
  if (files.length === 1 && isMask(files[0].name)) openMask(files[0], files[0].name);
  else openPhotographs(files);
});

// ---------------------------------------------------------------------------------------------

window.addEventListener("beforeunload", (event) => {
  const isUnsaved = ({ photograph }) => isResult(photograph) && !editor.saved.has(photograph);
  if (!editor.outputDir && [...album.values()].some(isUnsaved)) event.preventDefault();
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

onChoice("settings-dialog", { keys: ACTIONS.help });

useLanguage().then(describe);
