/** Photographs: image files that are decoded, with their names and sizes. */

import { convert } from "./api.js";
import { t } from "./language.js";

const READ_BY_SERVER = /^image\/(png|jpeg|webp|tiff|bmp|x-ms-bmp|avif)$/;

/**
 * Decodes an image file.
 *
 * @param {Blob} blob The file, which is kept as it is.
 * @param {string} name
 * @param {object} original The photograph that this one is a result of; itself by default.
 * @returns {Promise<object>} `blob`, `name`, `image` (an element), `width` and `height` as it is
 *     shown, that is upright, `original`, `source`, the file that it came as, and `frame`, the part
 *     of that file that it shows: left, top, right and bottom, or null for all of it.
 * @throws {Error} If the browser cannot show it.
 */
export async function read(blob, name, original = null) {
  const image = await decode(blob);
  if (!image) throw new Error(t("{name} cannot be shown by this browser.", { name }));
  return photographOf(blob, name, image, original);
}

/** The same for a file that a visitor opens: the server converts what the browser cannot show. */
export async function readAny(file, limits) {
  const { name } = file;
  compare(name, file.size, limits.max_bytes, 2 ** 20, t("MB"));
  // A copy, which lasts when the file is changed or deleted. A folder has no content.
  const content = await file.arrayBuffer().catch(() => {
    throw new Error(t("{name} cannot be shown.", { name }));
  });
  const blob = new Blob([content], { type: file.type });
  let image = await decode(blob);
  if (image) return makeReadable(photographOf(blob, name, image));
  try {
    image = await decode(await convert(blob, name, { format: "png" }));
  } catch (error) {
    if (![400, 413].includes(error.status)) throw error;
    const reason = error.message.replace(/^Image: it\b/, name);
    if (error.status === 413) throw new Error(reason);
    throw new Error(`${t("{name} cannot be shown.", { name })} ${reason}`);
  }
  if (!image) throw new Error(t("{name} cannot be shown.", { name }));
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
  photograph.source = original?.source ?? { blob, name };
  photograph.frame = original?.frame ?? null;
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
    canvas.toBlob((blob) =>
      blob ? resolve(blob) : reject(new Error(t("{name} is too large.", { name }))),
    );
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
  compare(name, width * height, limits.max_pixels, 1e6, t("megapixels"));
  if (blob) compare(name, blob.size, limits.max_bytes, 2 ** 20, t("MB"));
}

function compare(name, size, limit, scale, unit) {
  if (!limit || size <= limit) return;
  // Rounded apart, so that what is too large by little does not look as if it were not.
  const has = (Math.ceil((size / scale) * 10) / 10).toFixed(1);
  const most = (Math.floor((limit / scale) * 10) / 10).toFixed(1);
  throw new Error(
    t("{name} has {has} {unit}; this server takes up to {most}.", { name, has, unit, most }),
  );
}

/** Whether a photograph has been filled. */
export const isResult = (photograph) => photograph !== photograph.original;

/** Lets go of a photograph that is not needed any more. */
export const release = ({ image }) => URL.revokeObjectURL(image.src);

/** A file name that fits into a message. */
export const shorten = (name) =>
  name.length > 40 ? `${name.slice(0, 24)}…${name.slice(-12)}` : name;

/** A file name without its ending. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || "photograph";
