// Run by `npm install`: puts the files of onnxruntime-web that the page loads into ort/, so that this
// folder without node_modules is all a web server needs.
import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const FILES = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

mkdirSync(here("ort"), { recursive: true });
for (const file of FILES) {
  copyFileSync(here(`node_modules/onnxruntime-web/dist/${file}`), here(`ort/${file}`));
}
