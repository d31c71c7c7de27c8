/** What the page says: in passing, or until it is closed. */

import { t } from "./language.js";

const element = (id) => document.getElementById(id);
let timer;

/** Says something in passing. */
export function say(text, { lasts = false, clock = false } = {}) {
  const status = element("status");
  clearTimeout(timer);
  status.toggleAttribute("data-shown", Boolean(text));
  if (!text) return;
  status.replaceChildren(text);
  if (clock) {
    const time = document.createElement("span");
    time.id = "run-time";
    time.setAttribute("aria-hidden", "true"); // read aloud every second it would be a nuisance
    status.append(time);
  }
  if (!lasts) timer = setTimeout(() => status.removeAttribute("data-shown"), 4000);
}

/** Says what went wrong, until it is closed. */
export function complain(text, retry = null) {
  element("message-text").textContent = text;
  element("retry").hidden = !retry;
  element("retry").onclick = retry;
  element("message").hidden = false;
}

export function hush() {
  element("message").hidden = true;
}

/** Says that a photograph is being filled, and nothing else can be done to it. */
export function sayBusy() {
  say(t("Being filled. Esc cancels."), { lasts: true, clock: true });
}
