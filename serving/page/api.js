/** The server's HTTP interface, and its refusals in the words of the page. */

import { t } from "./language.js";

const TOKEN_KEY = "musical-token";
const MOST_RETRIES = 5;
const POLL_MILLISECONDS = 400;

/** A refusal of the server, or no answer at all. */
export class ServerError extends Error {
  /**
   * @param {string} code The server's own, or "unreachable".
   * @param {string} message A sentence to show.
   * @param {number} status Of HTTP; 0 without an answer.
   */
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }

  /** Whether the same request may well succeed later. */
  get isPassing() {
    return this.status === 0 || (this.status >= 500 && this.status !== 501);
  }
}

let kept = inStorage((storage) => storage.getItem(TOKEN_KEY)) ?? "";

/** The token, kept until the tab is closed. */
export const token = {
  get: () => kept,
  set(value) {
    kept = value;
    inStorage((storage) => storage.setItem(TOKEN_KEY, value));
  },
  clear() {
    kept = "";
    inStorage((storage) => storage.removeItem(TOKEN_KEY));
  },
};

function inStorage(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null; // where a browser allows no storage, the token lasts as long as the page
  }
}

/** What the server runs, and its limits. */
export async function describeModel() {
  return (await send("v1/model", {})).json();
}

/**
 * Has a hole filled.
 *
 * @param {Blob} image The photograph's file, as it is.
 * @param {string} name Its name.
 * @param {Blob} mask A PNG of the same size, white = hole.
 * @param {object} options
 * @param {string} options.model The name of the model; empty for the server's default.
 * @param {string} options.fill auto, copy or network.
 * @param {number} options.seed Which of the plausible fills.
 * @param {AbortSignal} options.signal
 * @param {(seconds: number) => void} options.onWait Called while the server is too busy.
 * @param {(progress: object) => void} options.onProgress Called with the server's `state`,
 *     `windows_done` and `windows` now and then.
 * @returns {Promise<{blob: Blob, milliseconds: number, saved: string}>} The filled photograph, a
 *     PNG; how long the model ran, NaN if the server does not say; and the name of the file in the
 *     server's folder, empty if the server saves none.
 */
export async function inpaint(image, name, mask, { signal, onWait, onProgress, ...options }) {
  for (let attempt = 1; ; attempt += 1) {
    const body = new FormData();
    body.append("image", image, name);
    body.append("mask", mask, "mask.png");
    body.append("format", "png");
    for (const [option, value] of Object.entries(options)) body.append(option, value);
    const job = randomName();
    // A proxy may keep the request alive after the page has closed it.
    const cancel = () => send(`v1/jobs/${job}`, { method: "DELETE" }).catch(() => {});
    signal.addEventListener("abort", cancel);
    const watch = new AbortController();
    try {
      poll(job, watch.signal, onProgress);
      const response = await send("v1/inpaint", {
        method: "POST",
        body,
        signal,
        headers: { "X-Job": job },
      });
      const run = /(?:^|,)\s*run;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
      return {
        blob: await response.blob(),
        milliseconds: run ? Number(run[1]) : NaN,
        saved: decodeURIComponent(response.headers.get("X-Saved") ?? ""),
      };
    } catch (error) {
      if (error.code !== "queue_full" || attempt > MOST_RETRIES) throw error;
      const seconds = Math.min(Math.max(error.retryAfter || 1, 1), 10);
      onWait(seconds);
      await pause(seconds * 1000, signal);
    } finally {
      signal.removeEventListener("abort", cancel);
      watch.abort();
    }
  }
}

/**
 * Has a photograph encoded in another format.
 *
 * @param {Blob} image The photograph's file.
 * @param {string} name Its name.
 * @param {object} options
 * @param {Blob} options.filled Its filled version, which the answer shows; none by default.
 * @param {string} options.format
 * @param {number | string} options.quality Empty for the server's default.
 * @param {string} options.metadata keep or strip.
 * @param {number[]} options.crop The part of the photograph: left, top, right and bottom, which may
 *     lie outside of it; all of it by default.
 * @returns {Promise<Blob>}
 */
export async function convert(image, name, { filled = null, crop = null, ...options }) {
  const body = new FormData();
  body.append("image", image, name);
  if (filled) body.append("filled", filled, "filled.png");
  if (crop) body.append("crop", crop.join(","));
  for (const [option, value] of Object.entries(options)) body.append(option, value);
  return (await send("v1/convert", { method: "POST", body })).blob();
}

/** Whether `select` finds outlines. */
export const canSelect = true;

/**
 * Finds the outline of an object.
 *
 * @param {Blob} image The photograph's file.
 * @param {string} name Its name.
 * @param {object} hint
 * @param {number[]} hint.box Left, top, right and bottom of a box around the object; none by default.
 * @param {Blob} hint.strokes A PNG of the same size, white where the object roughly is.
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>} A mask of the photograph's size, white = object.
 */
export async function select(image, name, { box, strokes }, signal) {
  const body = new FormData();
  body.append("photograph", image, name);
  if (box) body.append("box", box.join(","));
  if (strokes) body.append("strokes", strokes, "strokes.png");
  return (await send("v1/select", { method: "POST", body, signal })).blob();
}

/** Reports the progress of a request until `signal` is aborted. */
async function poll(job, signal, onProgress) {
  try {
    for (;;) {
      await pause(POLL_MILLISECONDS, signal);
      try {
        const response = await send(`v1/jobs/${job}`, { signal });
        const progress = await response.json();
        if (!signal.aborted) onProgress(progress);
      } catch (error) {
        if (error.status !== 404) return; // nothing depends on it
      }
    }
  } catch {
    // aborted: the answer is there
  }
}

function randomName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("unreachable", t("The server does not answer. Is it still running?"), 0);
  }
  if (response.ok) return response;
  let refusal = {};
  try {
    refusal = (await response.json()).error ?? {};
  } catch {
    // a proxy in between answers in its own way; the status has to do
  }
  const message = sentence(refusal.code, refusal.message, response.status);
  const error = new ServerError(refusal.code ?? "unknown", message, response.status);
  error.retryAfter = Number(response.headers.get("Retry-After"));
  throw error;
}

function sentence(code, message, status) {
  const known = {
    hole_covers_image: () =>
      t("The whole photograph is painted over. Leave some of it to fill the hole from."),
    no_mask: () => t("Nothing is painted yet. Paint over what should go."),
    nothing_selected: () => t("No object was found there. Try a box closer around it."),
    missing_package: () =>
      t(
        "This server cannot find outlines: OpenCV is missing there. Paint the object with the brush.",
      ),
    queue_full: () => t("The server is busy with other photographs. Try again in a moment."),
    not_ready: () => t("The server is still starting. Try again in a moment."),
    shutting_down: () => t("The server is shutting down."),
    timeout: () => t("This took longer than the server allows. A smaller hole is quicker."),
    internal: () => t("Something went wrong on the server. Your painting is still here."),
  }[code];
  if (known) return known();
  if (message) {
    const text = message[0].toUpperCase() + message.slice(1);
    return /[.!?]$/.test(text) ? text : `${text}.`;
  }
  return t("The server refused with status {status} and did not say why.", { status });
}

function pause(milliseconds, signal) {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
