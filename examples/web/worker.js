/** Runs the model, away from the page, which stays alive. */

import { fill } from "./full_size.mjs";

const MODEL = new URL("../model.onnx", import.meta.url);
const THREADS = 4; // more of them gain little

let starting;

addEventListener("message", async ({ data: { pixels, hole, width, height, method } }) => {
  try {
    starting ??= start();
    const run = await starting;
    if (!pixels) return; // the page only wanted the model to be ready
    await fill((...window) => run(method, ...window), pixels, hole, width, height, 4);
    postMessage({ pixels }, [pixels.buffer]);
  } catch (error) {
    starting = undefined;
    postMessage({ error: error.message });
  }
});

/** On the graphics card where the browser lets pages use it, else on the processor. */
async function start() {
  if (await navigator.gpu?.requestAdapter().catch(() => null)) {
    try {
      return await open("webgpu", await import("../ort/ort.webgpu.min.mjs"));
    } catch (error) {
      console.warn(`WebGPU: ${error.message}`);
    }
  }
  return open("wasm", await import("../ort/ort.wasm.min.mjs"));
}

async function open(provider, ort) {
  ort.env.wasm.numThreads = crossOriginIsolated
    ? Math.min(THREADS, navigator.hardwareConcurrency)
    : 1;
  ort.env.logLevel = "error";
  const answer = await fetch(MODEL);
  if (!answer.ok) throw new Error("model.onnx is missing beside this page.");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  const copies = session.outputNames.includes("source");

  return async (method, image, mask, height, width) => {
    const painting = copies && method === "network" ? "predicted" : "inpainted";
    const names = [painting, ...(copies && method !== "network" ? ["source"] : [])];
    const feeds = {
      image: new ort.Tensor("uint8", image, [1, height, width, 3]),
      mask: new ort.Tensor("uint8", mask, [1, height, width]),
    };
    const results = await session.run(feeds, names);
    return { inpainted: results[painting].data, source: results.source?.data };
  };
}
