/** What leaves the page: the filled photograph, in the format that was chosen. */

import { askForToken } from "./access.js";
import { convert } from "./api.js";
import { editor, element, timeline } from "./editor.js";
import { complain, hush, say } from "./notices.js";
import { isResult, stem } from "./photographs.js";

const NAMES = { png: "PNG", same: "it came", jpeg: "JPEG", webp: "WebP", avif: "AVIF" };

/** Downloads the result; any format but PNG is encoded by the server. */
export async function download() {
  const photograph = timeline.current?.photograph;
  if (!photograph || !isResult(photograph)) {
    say("Nothing is filled yet.");
    return;
  }
  hush();
  try {
    const { format, quality } = editor;
    let { blob } = photograph;
    if (format !== "png") {
      say("Preparing the download…", { lasts: true });
      blob = await convert(photograph.original.blob, photograph.original.name, {
        filled: photograph.blob,
        format,
        quality: format === "same" ? "" : quality,
      });
    }
    save(blob, `${stem(photograph.original.name)}-inpainted.${endingOf(blob)}`);
    editor.saved = photograph;
    say("Downloaded.");
  } catch (error) {
    say("");
    if (error.status === 401) askForToken(download);
    else complain(error.message, error.isPassing ? download : null);
  }
}

/** Gives a file to the browser's downloads. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const endingOf = ({ type }) => type.replace("image/", "").replace("jpeg", "jpg");

/** Lets the visitor choose the format and quality of the download. */
export function chooseFormat() {
  if (!isResult(timeline.current.photograph)) {
    say("Nothing is filled yet.");
    return;
  }
  element("save-dialog").showModal();
}

function takeChoice() {
  editor.format = element("format").value;
  editor.quality = Number(element("quality").value);
  element("quality-value").textContent = editor.quality;
  element("quality-field").hidden = !["jpeg", "webp", "avif"].includes(editor.format);
  const text = `Download as ${NAMES[editor.format]}`;
  element("download").dataset.tip = text;
  element("download").setAttribute("aria-label", text);
}

element("save-form").addEventListener("input", takeChoice);
element("save-dialog").addEventListener("close", ({ target }) => {
  const isMeant = target.returnValue === "save";
  target.returnValue = "";
  if (isMeant) download();
});
takeChoice(); // a reloaded page keeps what was chosen
