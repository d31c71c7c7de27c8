/** Photographs smaller than the model was trained on are enlarged for it, as `serving` does. */

const MOST = 4; // times

/**
 * Fills the hole of `pixels` in place, enlarged so that the shorter side has `side` pixels.
 *
 * @param {(pixels: Uint8ClampedArray, hole: Uint8Array, width: number, height: number) => Promise} fill
 *     Fills a photograph in place.
 * @param {Uint8ClampedArray} pixels RGBA.
 * @param {Uint8Array} hole A byte a pixel; not 0 = to be filled.
 */
export async function fillEnlarged(fill, pixels, hole, width, height, side) {
  const times = Math.min(side / Math.min(width, height), MOST);
  if (times <= 1) return fill(pixels, hole, width, height);
  const [wide, high] = [width, height].map((pixels) => Math.round(pixels * times));
  // A browser weights colors with alpha when it resizes: known pixels alone count.
  const known = pixels.slice();
  for (let at = 0; at < hole.length; at++) known[4 * at + 3] = hole[at] ? 0 : 255;
  const large = resize(new ImageData(known, width, height), wide, high);
  const missing = new Uint8Array(wide * high);
  for (let at = 0; at < missing.length; at++) {
    missing[at] = large[4 * at + 3] < 128 ? 1 : 0;
    large[4 * at + 3] = 255;
  }
  await fill(large, missing, wide, high);
  const filled = resize(new ImageData(large, wide, high), width, height);
  for (let at = 0; at < hole.length; at++) {
    if (hole[at]) pixels.set(filled.subarray(4 * at, 4 * at + 4), 4 * at);
  }
}

/** The pixels of a picture at another size. */
function resize(picture, width, height) {
  const from = new OffscreenCanvas(picture.width, picture.height);
  from.getContext("2d").putImageData(picture, 0, 0);
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(from, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
