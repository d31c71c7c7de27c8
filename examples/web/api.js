/** The functions of the server's `api.js`, without a server: the model runs in this browser. */

import { t } from "./language.js";
import { placeOfSeed } from "./seed.js";

const MODEL = new URL("../model.onnx", import.meta.url);
const MOST_PIXELS = 50_000_000; // what browsers hold in one canvas is not much more

/** As the server's page knows it; here every error stays. */
export class ServerError extends Error {
  status = 0;
  isPassing = false;
}

/** There is no server that could ask for one. */
export const token = { get: () => "", set() {}, clear() {} };

/** Description of the model, and the limits of the page. */
export async function describeModel() {
  const answer = await fetch(MODEL);
  if (!answer.ok) throw new ServerError("model.onnx is missing beside this page.");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const entries = readMetadata(bytes);
  if (entries.io !== "uint8" || entries.layout !== "nhwc") {
    throw new ServerError(
      `The model must be uint8 and nhwc, got ${entries.io} and ${entries.layout}. ` +
        "Export it with neither --io nor --layout.",
    );
  }
  const model = entries.name ?? "model";
  side = entries.strategy === "original" ? 0 : Number(entries.training_size);
  start().postMessage({}); // gets the model ready while the visitor paints
  const provider = "WebGPU / WebAssembly"; // the worker knows which
  const variants = placeOfSeed(bytes) > 0;
  return { ...entries, model, provider, variants, limits: { max_pixels: MOST_PIXELS } };
}

/** The file's own description, which ONNX Runtime gives to Python and C++ but not to JavaScript. */
function readMetadata(bytes) {
  const tail = bytes.subarray(Math.max(0, bytes.length - 2 ** 18));
  const text = new TextDecoder("latin1").decode(tail);
  const entries = {};
  // A protobuf StringStringEntryProto: the key, then 0x12, the length in groups of seven bits, the
  // lowest first, of which all but the last have the eighth bit set, and the value.
  for (const { 1: key, 2: groups, index, 0: all } of text.matchAll(
    /musical_tf\.(\w+)\x12([\x80-\xff]*[\x00-\x7f])/g,
  )) {
    const start = index + all.length;
    const bits = [...groups].map((group, at) => (group.charCodeAt(0) & 127) << (7 * at));
    entries[key] = text.slice(start, start + bits.reduce((sum, value) => sum + value));
  }
  return entries;
}

let worker;
let side = 0; // pixels that the model should see of a photograph's shorter side, at least

function start() {
  return (worker ??= new Worker(new URL("worker.js", import.meta.url), { type: "module" }));
}

/** Fills a photograph; arguments and result as on the server. */
export async function inpaint(image, name, mask, options) {
  const { fill: method = "auto", seed = 0, signal, onProgress } = options;
  const context = await draw(image);
  const { width, height } = context.canvas;
  const picture = context.getImageData(0, 0, width, height);
  const marks = (await draw(mask)).getImageData(0, 0, width, height).data;
  const hole = new Uint8Array(width * height);
  for (let at = 0; at < hole.length; at++) hole[at] = marks[4 * at] > 127 ? 1 : 0;
  if (!hole.includes(0)) {
    throw new ServerError(
      t("The whole photograph is painted over. Leave some of it to fill the hole from."),
    );
  }
  signal.throwIfAborted();
  onProgress({ state: "running", windows: 1, windows_done: 0 });
  const since = performance.now();
  start();
  const pixels = await new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => {
      worker?.terminate(); // nothing else stops a running model
      worker = undefined;
      reject(signal.reason);
    });
    worker.onmessage = ({ data }) =>
      data.error ? reject(new ServerError(data.error)) : resolve(data.pixels);
    worker.onerror = ({ message }) => reject(new ServerError(message ?? "The worker failed."));
    const { buffer } = picture.data;
    const task = { pixels: picture.data, hole, width, height, method, seed, side };
    worker.postMessage(task, [buffer, hole.buffer]);
  });
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
  const blob = await encode(context.canvas, "image/png");
  return { blob, milliseconds: performance.now() - since, saved: "" };
}

/** Encodes a photograph, or its filled version, in another format. */
export async function convert(image, name, { filled, crop, format, quality }) {
  const type = format === "same" ? image.type || "image/png" : `image/${format}`;
  const { canvas } = filled ? await draw(filled) : await draw(image, crop); // one is cropped already
  return encode(canvas, type, quality ? Number(quality) / 100 : undefined);
}

/** Finding an object's outline takes a server. */
export const canSelect = false;
export function select() {}

/** A context with a picture, or with a part of it, drawn into it. */
async function draw(blob, crop) {
  const bitmap = await createImageBitmap(blob).catch(() => {
    const error = new ServerError(t("This browser cannot show it."));
    error.status = 400;
    throw error;
  });
  const [left, top, right, bottom] = crop ?? [0, 0, bitmap.width, bitmap.height];
  const context = new OffscreenCanvas(right - left, bottom - top).getContext("2d");
  context.drawImage(bitmap, -left, -top);
  bitmap.close();
  return context;
}

async function encode(canvas, type, quality) {
  const blob = await canvas.convertToBlob({ type, quality });
  if (blob.type === type) return blob;
  const format = type.replace("image/", "");
  throw new ServerError(t("This browser cannot write {format}. Choose PNG.", { format }));
}
