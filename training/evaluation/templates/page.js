"use strict";
const root = document.documentElement;
document.querySelector(".theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const gallery = document.getElementById("gallery");
if (gallery) {  // tables alone have none
  const whose = document.getElementById("whose");
  const select = document.querySelector(".bar select[aria-label='Sort by']");
  const orders = [...document.querySelectorAll("[data-order]")];
  const methods = [...whose.options].slice(1).map(option => option.value);
  const cards = [...gallery.children].map(element => ({
    element, file: element.dataset.file, values: JSON.parse(element.dataset.values),
  }));
  const value = (card, method) => {
    if (select.value === "hole") return card.values.hole;
    if (method !== "spread") return card.values[method][select.value];
    const all = methods.map(each => card.values[each][select.value]).filter(each => each !== null);
    return all.length ? Math.max(...all) - Math.min(...all) : null;
  };
  const badness = card => {
    const found = value(card, whose.value);
    if (found === null) return -Infinity;  // identical to the truth
    return select.selectedOptions[0].dataset.better === "higher" && whose.value !== "spread" ? -found : found;
  };
  const label = () => {
    const {decimals, unit} = select.selectedOptions[0].dataset;
    if (decimals === undefined) return;
    for (const card of cards) for (const figure of card.element.querySelectorAll("figure[data-method]:has(span)")) {
      const found = value(card, figure.dataset.method);
      figure.querySelector("span").textContent = found === null ? "–" : `${found.toFixed(decimals)} ${unit}`.trim();
    }
  };
  const sort = () => {
    const sign = orders.find(button => button.getAttribute("aria-pressed") === "true").dataset.order === "worst" ? -1 : 1;
    const byFile = (a, b) => a.file < b.file ? -1 : a.file > b.file ? 1 : 0;
    cards.sort((a, b) => {
      const x = badness(a), y = badness(b);
      return x === y ? byFile(a, b) : sign * (x < y ? -1 : 1);
    });
    gallery.append(...cards.map(card => card.element));
  };
  for (const menu of [select, whose]) menu.addEventListener("change", () => { sort(); label(); });
  for (const button of orders) button.addEventListener("click", () => {
    for (const other of orders) other.setAttribute("aria-pressed", String(other === button));
    sort();
  });

  const dialog = document.querySelector("dialog");
  const [large, tabs, caption] = dialog.children;
  let figures = [], shown = 0;
  const show = index => {
    shown = (index + figures.length) % figures.length;
    const image = figures[shown].querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    [...tabs.children].forEach((tab, i) => tab.setAttribute("aria-pressed", String(i === shown)));
  };
  document.querySelector("main").addEventListener("click", event => {
    const figure = event.target.closest("figure");
    const card = figure?.closest("article");
    if (!card) return;
    figures = [...card.querySelectorAll("figure")];
    tabs.replaceChildren(...figures.map((other, i) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = other.querySelector("b").textContent;
      tab.addEventListener("click", () => show(i));
      return tab;
    }));
    caption.textContent = card.querySelector("h3").textContent + ": " + card.querySelector("header p").textContent;
    show(figures.indexOf(figure));
    dialog.showModal();
  });
  dialog.addEventListener("click", event => { if (event.target === dialog || event.target === large) dialog.close(); });
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowRight") show(shown + 1);
    else if (event.key === "ArrowLeft") show(shown - 1);
  });
}
