/** The server's token, and the choice of its models. */

import { describeModel, token } from "./api.js";
import { editor, element, isPainted, timeline } from "./editor.js";
import { t } from "./language.js";
import { complain, say } from "./notices.js";
import { bind, settings } from "./settings.js";

let afterToken = null;

function askForToken(then) {
  afterToken = then;
  element("token-error").hidden = !token.get();
  element("token").value = "";
  token.clear();
  element("token-dialog").showModal();
}

/** Says what went wrong, and offers `again` where that may help; without a token, asks for one. */
export function fail(error, again) {
  say("");
  if (error.status === 401) askForToken(again);
  else complain(error.message, error.isPassing ? again : null);
}

element("token-dialog").addEventListener("close", async (event) => {
  const value = element("token").value.trim();
  if (event.target.returnValue !== "use" || !value) return;
  event.target.returnValue = "";
  token.set(value);
  const isAccepted = await describe();
  if (afterToken) afterToken();
  else if (!isAccepted) askForToken(null);
});

/** The models of the package, as people call what they are for. */
const PURPOSES = {
  faces: {
    label: () => t("Portrait"),
    text: () => t("This server fills portraits: one face, upright and from the front."),
  },
  photo: {
    label: () => t("Everything else"),
    text: () => t("Streets, buildings and landscapes work best. Large faces do not."),
  },
};

/** Lets one choose where there is something to choose from. */
function offerModels(offered) {
  const choice = element("model-choice");
  const chosen = choice.value;
  editor.models = offered;
  choice.replaceChildren(...editor.models.map(({ model }) => new Option(labelOf(model), model)));
  if (editor.models.some(({ model }) => model === chosen)) choice.value = chosen;
  element("choice").hidden = editor.models.length < 2;
  describeChosen();
}

function labelOf(name) {
  const known = editor.models.every(({ model }) => model in PURPOSES);
  return known ? PURPOSES[name].label() : name.replace(/\.onnx$/, "");
}

function describeChosen() {
  const model = editor.models[Math.max(0, element("model-choice").selectedIndex)];
  if (!model) return;
  element("model").textContent =
    editor.models.length > 1
      ? t("Choose at the top what your photograph shows.")
      : (PURPOSES[model.model]?.text() ?? "");
  element("about").textContent = t(
    "This server runs {name}: {method} {preset} for {side} pixels, on {provider}, trained on {data}.",
    {
      ...model,
      name: model.name ?? model.model,
      data: model.data ?? model.dataset,
      side: model.training_size,
      provider: model.provider.replace("ExecutionProvider", ""),
    },
  );
  const form = element("settings-form");
  form.fill.querySelector("[value=copy]").disabled = !canCopy(model);
  const saves = element("saves");
  saves.hidden = !editor.outputDir;
  saves.textContent = t("This server saves every result in {folder}.", {
    folder: editor.outputDir,
  });
  if (!saves.hidden) {
    element("privacy").textContent = t("Your photograph is sent to this server only. {saves}", {
      saves: saves.textContent,
    });
  }
}

const canCopy = (model) => model.contract !== "1";

/** The chosen model's name, empty for the server's only one, and the fill that it can do. */
export function chosen() {
  const name = editor.models.length > 1 ? element("model-choice").value : "";
  const model = editor.models.find((one) => one.model === name) ?? editor.models[0];
  const isPossible = settings.fill !== "copy" || !model || canCopy(model);
  const fill = isPossible ? settings.fill : "auto";
  return { model: name, fill, hasVariants: Boolean(model?.variants) && fill !== "network" };
}

/** Whether the result on the screen can be filled in another way. */
export const canVary = () =>
  Boolean(timeline.current?.made) && !isPainted() && chosen().hasVariants;

const changed = () => document.dispatchEvent(new Event("choice"));
element("model-choice").addEventListener("change", changed);
bind(element("settings-form"), changed);
document.addEventListener("language", () => {
  if (editor.models.length) offerModels(editor.models);
});

/** Says on the page what the server runs; returns whether it told. */
export async function describe() {
  const line = element("model");
  try {
    const model = await describeModel();
    editor.limits = model.limits ?? {};
    editor.outputDir = model.output_dir ?? "";
    offerModels(model.models ?? [model]);
    return true;
  } catch (error) {
    if (error.status !== 401) return false; // it is told when a photograph cannot be filled
    const button = document.createElement("button");
    button.className = "link";
    button.type = "button";
    button.textContent = t("It asks for a token.");
    button.addEventListener("click", () => askForToken(null));
    line.replaceChildren(button);
    return false;
  }
}
