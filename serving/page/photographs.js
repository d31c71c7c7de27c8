/** Photographs: image files that are decoded, with their names and sizes. */

import { convert } from "./api.js";

const READ_BY_SERVER = /^image\/(png|jpeg|webp|tiff|bmp|x-ms-bmp|avif)$/;

/**
 * Decodes an image file.
 *
 * @param {Blob} blob The file, which is kept as it is.
 * @param {string} name
 * @param {object} original The photograph that this one is a result of; itself by default.
 * @returns {Promise<object>} `blob`, `name`, `image` (an element), `width` and `height` as it is
 *     shown, that is upright, and `original`.
 * @throws {Error} If the browser cannot show it.
 */
export async function read(blob, name, original = null) {
  const image = await decode(blob);
  if (!image) throw new Error(`${name} cannot be shown by this browser.`);
  return photographOf(blob, name, image, original);
}

/** The same for a file that a visitor opens: the server converts what the browser cannot show. */
export async function readAny(blob, name, limits) {
  let image = await decode(blob);
  if (image) return makeReadable(photographOf(blob, name, image));
  compare(name, blob.size, limits.max_bytes, 2 ** 20, "MB");
  try {
    image = await decode(await convert(blob, name, { format: "png" }));
  } catch (error) {
    if (![400, 413].includes(error.status)) throw error;
    const reason = error.message.replace(/^Image: it\b/, name);
    throw new Error(error.status === 400 ? `${name} cannot be shown. ${reason}` : reason);
  }
  if (!image) throw new Error(`${name} cannot be shown.`);
  return photographOf(blob, name, image);
}

/** An element that shows a file; null if the browser cannot. */
async function decode(blob) {
  const image = new Image();
  image.alt = "";
  image.draggable = false;
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(image.src);
    return null;
  }
  return image;
}

function photographOf(blob, name, image, original = null) {
  const photograph = { blob, name, image, width: image.naturalWidth, height: image.naturalHeight };
  photograph.original = original ?? photograph;
  return photograph;
}

/**
 * A photograph as the server can read it: formats that only the browser knows become PNG.
 *
 * @throws {Error} If it is too large for the browser to convert.
 */
async function makeReadable(photograph) {
  const { blob, name } = photograph;
  if (!blob.type || READ_BY_SERVER.test(blob.type)) return photograph;
  return read(await toPng(photograph), name);
}

function toPng({ image, width, height, name }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  URL.revokeObjectURL(image.src);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error(`${name} is too large.`))));
  });
}

/**
 * Compares a photograph with what the server takes.
 *
 * @param {object} photograph
 * @param {{max_pixels?: number, max_bytes?: number}} limits
 * @throws {Error} If it is too large.
 */
export function checkLimits({ blob, name, width, height }, limits) {
  compare(name, width * height, limits.max_pixels, 1e6, "megapixels");
  compare(name, blob.size, limits.max_bytes, 2 ** 20, "MB");
}

function compare(name, size, limit, unit, word) {
  if (!limit || size <= limit) return;
  // Rounded apart, so that what is too large by little does not look as if it were not.
  const has = (Math.ceil((size / unit) * 10) / 10).toFixed(1);
  const most = (Math.floor((limit / unit) * 10) / 10).toFixed(1);
  throw new Error(`${name} has ${has} ${word}; this server takes up to ${most}.`);
}

/** Whether a photograph has been filled. */
export const isResult = (photograph) => photograph !== photograph.original;

/** Lets go of a photograph that is not needed any more. */
export const release = ({ image }) => URL.revokeObjectURL(image.src);

/** A file name without its ending. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || "photograph";
