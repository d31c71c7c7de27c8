/**
 * Fills a photograph of any size at its full resolution. The page in ../web uses this file too.
 *
 * ../README.md has the rule in words. All of it is whole numbers, so every language computes the
 * same pixels.
 */

const WINDOW = 512; // pixels that the model sees each way, at most
const LEAST = 16; // pixels that a model takes each way, at least

/**
 * Fills the hole of `pixels` in place; known pixels stay as they are.
 *
 * @param {(image: Uint8Array, mask: Uint8Array, height: number, width: number) => Promise} run
 *     Runs the model on one window; resolves to `inpainted` and, of a version 2 file, `source`.
 * @param {Uint8Array | Uint8ClampedArray} pixels Rows of `channels` bytes, RGB or RGBA.
 * @param {Uint8Array} hole A byte a pixel; not 0 = to be filled.
 */
export async function fill(run, pixels, hole, width, height, channels = 3) {
  const view = windowAround(hole, width, height);
  if (!view) return;
  const { image, mask } = shrink(pixels, hole, width, channels, view);
  const { inpainted, source } = await run(image, mask, view.cellRows, view.cellColumns);
  const { top, left, scale, cellRows, cellColumns } = view;
  const unit = 4 * scale * scale;

  /** The small result, enlarged bilinearly, at a pixel of the window, times `unit`. */
  const enlarged = (y, x, channel) => {
    const row = Math.floor((2 * y + 1 - scale) / (2 * scale));
    const column = Math.floor((2 * x + 1 - scale) / (2 * scale));
    const down = 2 * y + 1 - scale - 2 * scale * row;
    const right = 2 * x + 1 - scale - 2 * scale * column;
    const corner = (i, j) => {
      i = Math.min(Math.max(i, 0), cellRows - 1);
      j = Math.min(Math.max(j, 0), cellColumns - 1);
      return inpainted[3 * (i * cellColumns + j) + channel];
    };
    const across = (i) => (2 * scale - right) * corner(i, column) + right * corner(i, column + 1);
    return (2 * scale - down) * across(row) + down * across(row + 1);
  };

  const filled = [];
  for (let y = 0; y < view.height; y++) {
    for (let x = 0; x < view.width; x++) {
      const at = (top + y) * width + left + x;
      if (!hole[at]) continue;
      const [i, j] = [Math.floor(y / scale), Math.floor(x / scale)];
      const cell = 2 * (i * cellColumns + j);
      const isCopied = source !== undefined && source[cell] >= 0; // version 1 files only paint
      const fromY = isCopied ? Math.min(y + (source[cell] - i) * scale, view.height - 1) : 0;
      const fromX = isCopied ? Math.min(x + (source[cell + 1] - j) * scale, view.width - 1) : 0;
      const from = channels * ((top + fromY) * width + left + fromX);
      for (let c = 0; c < 3; c++) {
        let value = enlarged(y, x, c) + unit / 2;
        if (isCopied) value += pixels[from + c] * unit - enlarged(fromY, fromX, c);
        pixels[channels * at + c] = Math.floor(Math.min(Math.max(value, 0), 255 * unit) / unit);
      }
      if (channels === 4) pixels[4 * at + 3] = 255;
    }
  }
}

/** The window: twice the hole, within the photograph; undefined without a hole. */
function windowAround(hole, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!hole[at]) continue;
      left = Math.min(left, x);
      top = Math.min(top, y);
      right = Math.max(right, x + 1);
      bottom = y + 1;
    }
  }
  if (!bottom) return undefined;
  const along = (first, end, size) => {
    const side = Math.min(size, Math.max(WINDOW, 2 * (end - first)));
    return [Math.min(Math.max(0, Math.floor((first + end - side) / 2)), size - side), side];
  };
  const [startY, sideY] = along(top, bottom, height);
  const [startX, sideX] = along(left, right, width);
  const scale = Math.ceil(Math.max(sideY, sideX) / WINDOW);
  const cells = (side) => Math.max(LEAST, Math.ceil(side / scale));
  return {
    ...{ top: startY, left: startX, height: sideY, width: sideX, scale },
    ...{ cellRows: cells(sideY), cellColumns: cells(sideX) },
  };
}

/** Means of the known pixels of each cell; 255 for the cells with a missing or without any pixel. */
function shrink(pixels, hole, width, channels, view) {
  const { scale, cellRows, cellColumns } = view;
  const sums = new Float64Array(3 * cellRows * cellColumns);
  const counts = new Uint32Array(cellRows * cellColumns);
  const mask = new Uint8Array(cellRows * cellColumns);
  for (let y = 0; y < view.height; y++) {
    for (let x = 0; x < view.width; x++) {
      const at = (view.top + y) * width + view.left + x;
      const cell = Math.floor(y / scale) * cellColumns + Math.floor(x / scale);
      if (hole[at]) {
        mask[cell] = 255;
        continue;
      }
      counts[cell]++;
      for (let c = 0; c < 3; c++) sums[3 * cell + c] += pixels[channels * at + c];
    }
  }
  const mean = (sum, count) => Math.floor((2 * sum + count) / (2 * count));
  return {
    image: Uint8Array.from(sums, (sum, i) => mean(sum, Math.max(1, counts[Math.floor(i / 3)]))),
    mask: mask.map((value, cell) => (counts[cell] ? value : 255)),
  };
}
