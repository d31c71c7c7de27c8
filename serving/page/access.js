/** The server's token, and the choice of its models. */

import { describeModel, token } from "./api.js";
import { editor, element } from "./editor.js";

let afterToken = null;

export function askForToken(then) {
  afterToken = then;
  element("token-error").hidden = !token.get();
  element("token").value = "";
  token.clear();
  element("token-dialog").showModal();
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
    label: "Portrait",
    text: "This server fills portraits: one face, upright and from the front.",
  },
  photo: {
    label: "Everything else",
    text: "Streets, buildings and landscapes work best. Large faces do not.",
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
  return known ? PURPOSES[name].label : name.replace(/\.onnx$/, "");
}

function describeChosen() {
  const model = editor.models[Math.max(0, element("model-choice").selectedIndex)];
  const name = model.name ? `“${model.name}”, ` : "";
  const data = model.data ?? model.dataset;
  const words = `${name}${model.method} ${model.preset}, trained on ${data} at ${model.training_size} pixels`;
  const purpose = PURPOSES[model.model]?.text ?? "";
  element("model").textContent =
    editor.models.length > 1 ? "Choose at the top what your photograph shows." : purpose;
  element("about").textContent =
    `This server runs ${words}, on ${model.provider.replace("ExecutionProvider", "")}.`;
}

element("model-choice").addEventListener("change", describeChosen);

/** Says on the page what the server runs; returns whether it told. */
export async function describe() {
  const line = element("model");
  try {
    const model = await describeModel();
    editor.limits = model.limits ?? {};
    offerModels(model.models ?? [model]);
    return true;
  } catch (error) {
    if (error.status !== 401) return false; // it is told when a photograph cannot be filled
    const button = document.createElement("button");
    button.className = "link";
    button.type = "button";
    button.textContent = "It asks for a token.";
    button.addEventListener("click", () => askForToken(null));
    line.replaceChildren(button);
    return false;
  }
}
