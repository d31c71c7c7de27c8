/** The photographs of the session: their list, and what is done to all of them. */

import { fail } from "./access.js";
import { album, editor, element, isPainted, onChoice, push, stage, timeline } from "./editor.js";
import { run } from "./filling.js";
import { t } from "./language.js";
import { hush, say, sayBusy } from "./notices.js";
import { chooseFile, show } from "./opening.js";
import { isResult } from "./photographs.js";
import { downloadResult } from "./saving.js";

export function showAlbum() {
  if (editor.running) {
    sayBusy();
    return;
  }
  const items = [...album].map(([source, { photograph }]) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "submit";
    button.className = "thumb";
    button.setAttribute("aria-current", String(source === timeline.current?.photograph.source));
    button.addEventListener("click", () => {
      element("album-dialog").returnValue = "";
      open(source);
    });
    const name = document.createElement("span");
    name.textContent = source.name;
    const state = document.createElement("small");
    state.textContent = isResult(photograph) ? t("filled") : t("not filled yet");
    button.append(photograph.image.cloneNode(), name, state);
    item.append(button);
    return item;
  });
  element("album-list").replaceChildren(...items);
  const results = [...album.values()].filter(({ photograph }) => isResult(photograph));
  element("album-fill").disabled = album.size < 2 || !(isPainted() || editor.last);
  element("album-download").disabled = !results.length;
  element("album-dialog").showModal();
}

/** Shows a photograph as it was left. */
async function open(source) {
  if (editor.running || source === timeline.current.photograph.source) return;
  push({ ...album.get(source) });
  await show();
  stage.focus({ preventScroll: true });
}

/** Fills what is painted, or was filled last, in every photograph of the same size. */
async function fillAll() {
  const { photograph, strokes } = timeline.current;
  const { width, height } = photograph;
  const mask = isPainted() ? { width, height, strokes } : editor.last;
  const fits = (one) => one.width === mask.width && one.height === mask.height;
  const states = [...album.values()].filter((state) => fits(state.photograph));
  let done = 0;
  for (const { photograph: each } of states) {
    push({ photograph: each, strokes: mask.strokes });
    await show();
    if (!(await run())) return; // it says why
    done += 1;
  }
  say(
    done < album.size
      ? t("Filled {done} of {all} photographs. The others have another size.", {
          done,
          all: album.size,
        })
      : t("Filled {done} photographs.", { done }),
    { lasts: true },
  );
}

/** Downloads every result, as the download is set. */
async function downloadAll() {
  hush();
  try {
    for (const { photograph } of album.values()) {
      if (!isResult(photograph)) continue;
      say(t("Preparing the download…"), { lasts: true });
      await downloadResult(photograph);
    }
    say(t("Downloaded."));
  } catch (error) {
    fail(error, downloadAll);
  }
}

onChoice("album-dialog", { open: chooseFile, fill: fillAll, download: downloadAll });
