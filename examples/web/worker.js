/** Runs the model, away from the page, which stays alive. */

import { fill } from "./full_size.mjs";
import { setSeed } from "./seed.js";
import { fillEnlarged } from "./small.js";

const MODEL = new URL("../model.onnx", import.meta.url);
const THREADS = 4; // more of them gain little

/** The graphics card where the browser lets pages use it; one that fails is not tried again. */
const providers = navigator.gpu ? ["webgpu", "wasm"] : ["wasm"];
let opening;
let opened = 0; // the seed that the open model has as its default

addEventListener("message", async ({ data }) => {
  const { pixels, hole, width, height, method, side, seed = 0 } = data;
  try {
    if (seed !== opened) await close();
    opened = seed;
    await attempt(async ({ run }) => {
      if (!pixels) return; // the page only wanted the model to be ready
      const fillOne = (...photograph) =>
        fill((...window) => run(method, ...window), ...photograph, 4);
      await fillEnlarged(fillOne, pixels, hole, width, height, side);
      postMessage({ pixels }, [pixels.buffer]);
    });
  } catch (error) {
    postMessage({ error: error.message });
  }
});

/** Closes the model, to open it with another seed. */
async function close() {
  const session = await opening?.catch(() => {});
  opening = undefined;
  await session?.release();
}

async function attempt(task) {
  for (;;) {
    const session = (opening ??= open(providers[0]));
    try {
      return await task(await session);
    } catch (error) {
      if (opening !== session) continue; // another task has gone on already
      opening = undefined;
      if (providers.length === 1) throw error;
      console.warn(`${providers.shift()}: ${error.message}`);
    }
  }
}

async function open(provider) {
  const ort = await import(`../ort/ort.${provider}.min.mjs`);
  const threads = crossOriginIsolated ? Math.min(THREADS, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const answer = await fetch(MODEL);
  if (!answer.ok) throw new Error("model.onnx is missing beside this page.");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  setSeed(bytes, opened);
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: [provider],
    logSeverityLevel: 3, // errors
  });
  const copies = session.outputNames.includes("source");

  const run = async (method, image, mask, height, width) => {
    const painting = copies && method === "network" ? "predicted" : "inpainted";
    const names = copies && method !== "network" ? [painting, "source"] : [painting];
    const feeds = {
      image: new ort.Tensor("uint8", image, [1, height, width, 3]),
      mask: new ort.Tensor("uint8", mask, [1, height, width]),
    };
    const results = await session.run(feeds, names);
    return { inpainted: results[painting].data, source: results.source?.data };
  };
  return { run, release: () => session.release() };
}
