/** What leaves the page: the filled photograph, in the format that was chosen. */

import { fail } from "./access.js";
import { convert } from "./api.js";
import { editor, element, onChoice, timeline } from "./editor.js";
import { nameButton, t } from "./language.js";
import { hush, say } from "./notices.js";
import { isResult, stem } from "./photographs.js";
import { bind, settings } from "./settings.js";

const NAMES = { png: "PNG", jpeg: "JPEG", webp: "WebP", avif: "AVIF" };

/** A result's file as it was chosen; any but a PNG with its metadata is encoded by the server. */
async function encode(photograph, { format, quality, metadata }) {
  if (format === "png" && metadata === "keep") return photograph.blob;
  const { source, frame } = photograph.original;
  return convert(source.blob, source.name, {
    filled: photograph.blob,
    crop: frame,
    format,
    quality: format === "same" ? "" : quality,
    metadata,
  });
}

/** Downloads a result. */
export async function downloadResult(photograph) {
  const blob = await encode(photograph, settings);
  save(blob, `${stem(photograph.source.name)}-inpainted.${endingOf(blob)}`);
  editor.saved.add(photograph);
}

/** Downloads the result on the screen. */
export function download() {
  return out(download, async (photograph) => {
    say(t("Preparing the download…"), { lasts: true });
    await downloadResult(photograph);
    say(t("Downloaded."));
  });
}

/** Copies the result on the screen to the clipboard, which takes PNG alone. */
export function copy() {
  return out(copy, async (photograph) => {
    if (!globalThis.ClipboardItem || !navigator.clipboard?.write) {
      throw new Error(
        t(
          "The browser gives this page no clipboard: it needs https or localhost. Download instead.",
        ),
      );
    }
    const blob = encode(photograph, { ...settings, format: "png", quality: "" });
    const item = new ClipboardItem({ "image/png": blob });
    await navigator.clipboard.write([item]).catch(async (error) => {
      await blob; // says more where it failed itself
      throw error;
    });
    say(t("Copied to the clipboard."));
  });
}

/** Does something with the result on the screen, and says what goes wrong. */
async function out(again, work) {
  const photograph = timeline.current?.photograph;
  if (!photograph || !isResult(photograph)) {
    say(t("Nothing is filled yet."));
    return;
  }
  hush();
  try {
    await work(photograph);
  } catch (error) {
    fail(error, again);
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

/** Lets the visitor choose the format of the download. */
export function chooseFormat() {
  if (isResult(timeline.current.photograph)) element("save-dialog").showModal();
  else say(t("Nothing is filled yet."));
}

function showChoice() {
  const { format, quality } = settings;
  element("quality-value").textContent = quality;
  element("quality-field").hidden = !["jpeg", "webp", "avif"].includes(format);
  const name = NAMES[format];
  nameButton(
    element("download"),
    name ? t("Download as {format}", { format: name }) : t("Download as it came"),
  );
}

bind(element("save-form"), showChoice);
document.addEventListener("language", showChoice);
onChoice("save-dialog", { save: download, copy });
