/**
 * The language of the page. English stands in the page's own files; `languages/CODE.json` maps each
 * English text to its translation, and a text without one stays English.
 */

import { settings, store } from "./settings.js";

export const LANGUAGES = {
  en: "English",
  de: "Deutsch",
  fr: "Français",
  es: "Español",
  ja: "日本語",
  zh: "中文",
};

const ATTRIBUTES = ["aria-label", "data-tip"];

let words = {};
const places = []; // [element or text node, attribute or null, English text]

/** An English text in the language of the page; `{name}` stands for a value. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The language that was chosen, or the browser's first that the page speaks. */
function preferred() {
  const wanted = [settings.language, ...navigator.languages];
  return wanted.map((code) => code.split("-")[0]).find((code) => code in LANGUAGES) ?? "en";
}

/** Translates the page, and calls what listens to the document's event "language". */
export async function useLanguage() {
  let code = preferred();
  let found = {};
  if (code !== "en") {
    try {
      const response = await fetch(`page/languages/${code}.json`);
      found = response.ok ? await response.json() : {};
    } catch {
      // unreachable: the texts stay English
    }
    if (!Object.keys(found).length) code = "en";
  }
  words = found;
  document.documentElement.lang = code;
  for (const [node, attribute, text] of places) {
    if (attribute) node.setAttribute(attribute, t(text));
    else
      node.data = node.data.replace(
        /^(\s*)[^]*?(\s*)$/,
        (_, before, after) => before + t(text) + after,
      );
  }
  document.dispatchEvent(new Event("language"));
}

/** Finds what the HTML says in English. */
function collect(root) {
  for (const element of root.querySelectorAll("[data-tip], [aria-label]")) {
    for (const name of ATTRIBUTES) {
      if (element.hasAttribute(name)) places.push([element, name, element.getAttribute(name)]);
    }
  }
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!/\p{L}/u.test(node.data) || node.parentElement.closest("[translate=no], kbd")) continue;
    places.push([node, null, node.data.trim().replace(/\s+/g, " ")]);
  }
}

const SPOKEN = { Ctrl: "Control", "⇧": "Shift", Del: "Delete", "−": "-" };

/** Gives a button its icon, and names it by its tip and its key. */
function dress(element) {
  const { icon, tip, key } = element.dataset;
  if (icon) element.prepend(iconOf(icon));
  if (tip && icon) element.setAttribute("aria-label", tip);
  if (key) {
    const keys = key.split(" ").map((one) => SPOKEN[one] ?? one);
    element.setAttribute("aria-keyshortcuts", keys.join("+"));
  }
}

function iconOf(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `page/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** Sets what a button is called. */
export function nameButton(element, text) {
  element.dataset.tip = text;
  element.setAttribute("aria-label", text);
}

for (const element of document.querySelectorAll("[data-icon], [data-key]")) dress(element);
collect(document.body);

const select = document.querySelector("[name=language]");
for (const [code, name] of Object.entries(LANGUAGES)) {
  const option = new Option(name, code);
  option.lang = code;
  select.append(option);
}
select.addEventListener("change", () => {
  store({ language: select.value });
  useLanguage();
});
document.addEventListener("language", () => {
  select.value = document.documentElement.lang;
});
