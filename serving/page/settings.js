/** What a visitor has chosen; the browser keeps it, unless that is all as it was at first. */

const KEY = "musical-settings";

const DEFAULTS = {
  language: "", // of the page; empty for the browser's
  fill: "auto", // auto, copy or network
  fillOnRelease: false,
  format: "png", // of the download
  quality: 90, // of the download, 1 to 100
  metadata: "keep", // keep or strip
};

export const settings = { ...DEFAULTS, ...read() };

function read() {
  try {
    const found = Object.entries(JSON.parse(localStorage.getItem(KEY)) ?? {});
    return Object.fromEntries(
      found.filter(([name, value]) => typeof value === typeof DEFAULTS[name]),
    );
  } catch {
    return {}; // no storage is allowed, or it holds something else
  }
}

/** Changes settings and keeps them. */
export function store(changes) {
  Object.assign(settings, changes);
  const changed = Object.entries(settings).filter(([name, value]) => value !== DEFAULTS[name]);
  try {
    if (changed.length) localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(changed)));
    else localStorage.removeItem(KEY);
  } catch {
    // the settings last as long as the page
  }
}

/** Ties the fields of a form to the settings of their names. */
export function bind(form, onChange) {
  const fields = [...form.elements].filter(({ name }) => name in DEFAULTS && name !== "language");
  for (const field of fields) {
    if (field.type === "checkbox") field.checked = settings[field.name];
    else field.value = settings[field.name];
    if (!field.value) field.selectedIndex = 0; // what was kept is no option any more
  }
  const take = () => {
    const values = fields.map((field) => {
      const value = field.type === "checkbox" ? field.checked : field.value;
      return [field.name, field.type === "range" ? Number(value) : value];
    });
    store(Object.fromEntries(values));
    onChange();
  };
  form.addEventListener("input", take);
  onChange();
}
