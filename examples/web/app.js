// Opens a picture, takes a hole drawn on it, runs model.onnx in the browser, offers the result.

const element = (id) => document.getElementById(id);
const view = element("view").getContext("2d", { willReadFrequently: true }); // the picture as it is now
const mask = element("mask").getContext("2d", { willReadFrequently: true }); // opaque = fill this
const PAINT = "rgb(225, 20, 140)";
const OPAQUE = 127; // alpha above which a mask pixel counts, as 127 is the model's own threshold

let model; // { bytes, trainingSize }
let session; // { run, provider, threads }, made from the model when first needed
let original; // ImageBitmap of the picture as it was opened
let name = "picture";
let strokes = []; // { size, erase, points: [[x, y], ...] } or { bitmap }, in pixels of the picture
let filled = false;
let busy = false;

// The model

async function fetchModel() {
  const answer = await fetch("model.onnx");
  if (answer.ok) return answer.arrayBuffer();
  element("model-label").hidden = false;
  throw new Error("There is no model.onnx beside this page. Put one there, or open one.");
}

async function useModel(buffer) {
  const bytes = new Uint8Array(buffer);
  const contract = readMetadata(bytes);
  if (contract.io !== "uint8" || contract.layout !== "nhwc") {
    throw new Error(
      contract.io
        ? `This model is ${contract.io}, ${contract.layout}; the page needs uint8, nhwc: export it with neither --io nor --layout.`
        : "This is not a model exported by musical-tf.",
    );
  }
  model = { bytes, trainingSize: Number(contract.training_size) };
  session = undefined;
  const sizes = element("working-size");
  if (![...sizes.options].some((option) => Number(option.value) === model.trainingSize)) {
    sizes.add(new Option(model.trainingSize, model.trainingSize), 0);
  }
  sizes.value = model.trainingSize;
  say(original ? "Paint over what should go, then fill." : "The model is ready. Open a picture.");
  refresh();
}

/** The file's own description, which ONNX Runtime gives to Python and C++ but not to JavaScript. */
function readMetadata(bytes) {
  const text = new TextDecoder("latin1").decode(bytes.subarray(Math.max(0, bytes.length - 2 ** 16)));
  // A protobuf StringStringEntryProto: field 1 the key, then 0x12, the length, field 2 the value.
  const entry = (key) => {
    const start = text.lastIndexOf(`musical_tf.${key}\x12`);
    if (start < 0) return undefined;
    const length = start + `musical_tf.${key}\x12`.length;
    return text.substr(length + 1, text.charCodeAt(length));
  };
  return { io: entry("io"), layout: entry("layout"), training_size: entry("training_size") };
}

async function startSession(provider) {
  if (session?.provider === provider) return session;
  const onGpu = provider === "webgpu";
  const ort = await import(onGpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  // Threads need a page that is isolated from other sites, see serve.py. The proxy is a worker: the
  // page stays alive while the processor computes.
  const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.proxy = !onGpu;
  ort.env.logLevel = "error";
  const made = await ort.InferenceSession.create(model.bytes.slice(), {
    executionProviders: [provider],
  });
  const run = async (image, hole, height, width) => {
    const feeds = {
      image: new ort.Tensor("uint8", image, [1, height, width, 3]),
      mask: new ort.Tensor("uint8", hole, [1, height, width]),
    };
    return (await made.run(feeds)).inpainted.data;
  };
  session = { run, provider, threads };
  return session;
}

// Filling

async function fill() {
  const { width, height } = view.canvas;
  const hole = alphaOf(mask, 0, 0, width, height);
  const box = bounds(hole, width, height);
  if (!box) return say("Paint over what should go first.", true);
  if (box.count === width * height) return say("The hole covers the whole picture.", true);
  setBusy(true);
  try {
    say("Starting the model …");
    const { run, provider, threads } = await startSession(element("provider").value);
    say("Filling …");
    const started = performance.now();
    await fillWindow(run, windowAround(box, width, height), hole);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const where = provider === "webgpu" ? "graphics card" : `${threads} thread${threads > 1 ? "s" : ""}`;
    say(`Filled in ${seconds} s (${where}).`);
    filled = true;
    strokes = [];
  } catch (error) {
    say(`The model failed: ${error.message}`, true);
  } finally {
    setBusy(false);
    redrawMask();
  }
}

/** What the model looks at: twice the hole, at least the working size, within the picture. */
function windowAround(box, width, height) {
  const least = Number(element("working-size").value);
  const along = (start, end, size) => {
    const side = Math.min(size, Math.max(least, 2 * (end - start)));
    const first = Math.round((start + end - side) / 2);
    return [Math.min(Math.max(0, first), size - side), side];
  };
  const [x, w] = along(box.left, box.right, width);
  const [y, h] = along(box.top, box.bottom, height);
  return { x, y, width: w, height: h, scale: Math.max(1, Math.max(w, h) / least) };
}

/** Runs the model on one window, shrunk by its scale, and pastes the pixels of the hole. */
async function fillWindow(run, { x, y, width, height, scale }, hole) {
  const w = Math.max(16, Math.round(width / scale)); // the model takes 16 pixels and more
  const h = Math.max(16, Math.round(height / scale));
  const asIs = w === width && h === height;
  const pixels = view.getImageData(x, y, width, height);
  const holeAt = (column, row) => hole[(y + row) * view.canvas.width + x + column];

  const small = asIs ? pixels : shrink(pixels, holeAt, w, h);
  const image = new Uint8Array(w * h * 3);
  const smallHole = new Uint8Array(w * h);
  for (let i = 0; i < w * h; i++) {
    image.set(small.data.subarray(4 * i, 4 * i + 3), 3 * i);
    const missing = asIs ? holeAt(i % w, Math.floor(i / w)) : small.data[4 * i + 3] < 255;
    smallHole[i] = missing ? 255 : 0;
  }
  const result = await run(image, smallHole, h, w);

  const answer = new ImageData(w, h);
  for (let i = 0; i < w * h; i++) {
    answer.data.set(result.subarray(3 * i, 3 * i + 3), 4 * i);
    answer.data[4 * i + 3] = 255;
  }
  const large = asIs ? answer : resize(answer, width, height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const i = 4 * (row * width + column);
      if (holeAt(column, row)) pixels.data.set(large.data.subarray(i, i + 4), i);
    }
  }
  view.putImageData(pixels, x, y);
}

/** Shrinks with the hole transparent, so that it bleeds into no known pixel and marks what it touches. */
function shrink(pixels, holeAt, width, height) {
  const erased = new ImageData(new Uint8ClampedArray(pixels.data), pixels.width, pixels.height);
  for (let i = 0; i < pixels.width * pixels.height; i++) {
    if (holeAt(i % pixels.width, Math.floor(i / pixels.width))) erased.data[4 * i + 3] = 0;
  }
  return resize(erased, width, height);
}

function resize(pixels, width, height) {
  const from = context(pixels.width, pixels.height);
  from.putImageData(pixels, 0, 0);
  const to = context(width, height);
  to.imageSmoothingQuality = "high";
  to.drawImage(from.canvas, 0, 0, width, height);
  return to.getImageData(0, 0, width, height);
}

function context(width, height) {
  return new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
}

/** 1 where the canvas is opaque, 0 elsewhere. */
function alphaOf(canvas, x, y, width, height) {
  const { data } = canvas.getImageData(x, y, width, height);
  const hole = new Uint8Array(width * height);
  for (let i = 0; i < hole.length; i++) hole[i] = data[4 * i + 3] > OPAQUE ? 1 : 0;
  return hole;
}

function bounds(hole, width, height) {
  let [left, top, right, bottom, count] = [width, height, 0, 0, 0];
  for (let i = 0; i < hole.length; i++) {
    if (!hole[i]) continue;
    const [column, row] = [i % width, Math.floor(i / width)];
    left = Math.min(left, column);
    right = Math.max(right, column + 1);
    top = Math.min(top, row);
    bottom = Math.max(bottom, row + 1);
    count++;
  }
  return count ? { left, top, right, bottom, count } : undefined;
}

// Pictures and masks

async function openPicture(file) {
  original = await decode(file);
  name = file.name.replace(/\.[^.]*$/, "");
  for (const { canvas } of [view, mask]) {
    canvas.width = original.width;
    canvas.height = original.height;
  }
  view.drawImage(original, 0, 0);
  strokes = [];
  filled = false;
  element("empty").hidden = true;
  element("frame").hidden = false;
  fit();
  redrawMask();
  if (model) say("Paint over what should go, then fill.");
}

async function openMask(file) {
  const bitmap = await decode(file);
  if (bitmap.width !== original.width || bitmap.height !== original.height) {
    throw new Error(
      `The mask must be ${original.width} x ${original.height} like the picture, is ${bitmap.width} x ${bitmap.height}.`,
    );
  }
  const canvas = context(bitmap.width, bitmap.height);
  canvas.drawImage(bitmap, 0, 0);
  const pixels = canvas.getImageData(0, 0, bitmap.width, bitmap.height);
  const [red, green, blue] = PAINT.match(/\d+/g).map(Number);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b] = pixels.data.subarray(i, i + 3);
    pixels.data.set([red, green, blue, 0.299 * r + 0.587 * g + 0.114 * b > 127 ? 255 : 0], i);
  }
  strokes.push({ bitmap: await createImageBitmap(pixels) });
  redrawMask();
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name} cannot be read as a picture.`);
  }
}

function redrawMask() {
  mask.clearRect(0, 0, mask.canvas.width, mask.canvas.height);
  for (const stroke of strokes) draw(stroke);
  refresh();
}

function draw(stroke) {
  if (stroke.bitmap) return mask.drawImage(stroke.bitmap, 0, 0);
  mask.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
  mask.strokeStyle = PAINT;
  mask.lineWidth = stroke.size;
  mask.lineCap = mask.lineJoin = "round";
  mask.beginPath();
  mask.moveTo(...stroke.points[0]);
  for (const point of stroke.points) mask.lineTo(...point);
  mask.stroke();
  mask.globalCompositeOperation = "source-over";
}

/** As large as the window allows; small pictures are enlarged up to three times. */
function fit() {
  if (!original) return;
  const stage = element("stage");
  const room = { width: stage.clientWidth - 40, height: Math.max(320, innerHeight * 0.62) };
  const zoom = Math.min(3, room.width / original.width, room.height / original.height);
  element("frame").style.width = `${original.width * zoom}px`;
  element("frame").style.height = `${original.height * zoom}px`;
}

// The page

function say(message, isError = false) {
  element("status").textContent = message;
  element("status").classList.toggle("error", isError);
}

function setBusy(state) {
  busy = state;
  document.body.classList.toggle("busy", busy);
  refresh();
}

function refresh() {
  element("fill").disabled = busy || !model || !strokes.length;
  element("undo").disabled = element("clear").disabled = busy || !strokes.length;
  element("download").disabled = element("compare").disabled = busy || !filled;
  element("eraser").disabled = busy || !original;
  for (const id of ["mask-file", "picture", "provider", "working-size", "model"]) {
    element(id).disabled = busy || (id === "mask-file" && !original);
    element(id).closest(".file")?.classList.toggle("off", element(id).disabled);
  }
}

function opener(input, open) {
  element(input).addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that the same file can be opened again
    if (file) await attempt(() => open(file));
  });
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

opener("picture", openPicture);
opener("mask-file", openMask);
opener("model", async (file) => useModel(await file.arrayBuffer()));

mask.canvas.addEventListener("pointerdown", (event) => {
  if (busy || event.button !== 0) return;
  mask.canvas.setPointerCapture(event.pointerId);
  const scale = original.width / mask.canvas.clientWidth;
  strokes.push({
    size: Number(element("brush").value) * scale,
    erase: element("eraser").getAttribute("aria-pressed") === "true",
    points: [[event.offsetX * scale, event.offsetY * scale]],
  });
  draw(strokes.at(-1));
  refresh();
});
mask.canvas.addEventListener("pointermove", (event) => {
  if (busy || !mask.canvas.hasPointerCapture(event.pointerId)) return;
  const scale = original.width / mask.canvas.clientWidth;
  strokes.at(-1).points.push([event.offsetX * scale, event.offsetY * scale]);
  draw(strokes.at(-1));
});

// Drawn anew at its end: while it grows, its soft edge is laid over itself and hardens.
mask.canvas.addEventListener("lostpointercapture", redrawMask);

element("eraser").addEventListener("click", ({ currentTarget }) => {
  const pressed = currentTarget.getAttribute("aria-pressed") === "true";
  currentTarget.setAttribute("aria-pressed", String(!pressed));
});
element("undo").addEventListener("click", () => {
  strokes.pop();
  redrawMask();
});
element("clear").addEventListener("click", () => {
  strokes = [];
  redrawMask();
});
element("fill").addEventListener("click", fill);
element("download").addEventListener("click", () => {
  view.canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}-filled.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
});

let after; // the picture as it is now, while "Before" is held
const showBefore = () => {
  if (after || !filled || busy) return;
  after = view.getImageData(0, 0, view.canvas.width, view.canvas.height);
  view.drawImage(original, 0, 0);
};
const showAfter = () => {
  if (after) view.putImageData(after, 0, 0);
  after = undefined;
};
element("compare").addEventListener("pointerdown", showBefore);
element("compare").addEventListener("keydown", ({ key }) => key === " " && showBefore());
for (const event of ["pointerup", "pointerleave", "pointercancel", "keyup", "blur"]) {
  element("compare").addEventListener(event, showAfter);
}

addEventListener("keydown", (event) => {
  if (event.key === "[" || event.key === "]") {
    element("brush").value = Number(element("brush").value) * (event.key === "]" ? 1.25 : 0.8);
  } else if (event.key === "z" && (event.ctrlKey || event.metaKey) && !element("undo").disabled) {
    event.preventDefault();
    element("undo").click();
  }
});
addEventListener("resize", fit);

const stage = element("stage");
for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  stage.addEventListener(event, (occurrence) => {
    occurrence.preventDefault();
    stage.classList.toggle("over", over && !busy);
  });
}
stage.addEventListener("drop", ({ dataTransfer }) => {
  const [file] = dataTransfer.files;
  if (file && !busy) attempt(() => openPicture(file));
});

if (await navigator.gpu?.requestAdapter()) {
  element("provider").querySelector("[value=webgpu]").disabled = false;
}
await attempt(async () => useModel(await fetchModel()));
