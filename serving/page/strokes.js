/**
 * What is painted, as shapes in the photograph's own pixels, and how they become a mask.
 *
 * The list of strokes is the only truth: the screen draws it at the screen's resolution, and
 * `encodeMask` draws it at the photograph's, strip by strip. No bitmap of the photograph's size is
 * ever held, so 24 megapixels cost no more than one, and no browser's limit on canvases is met.
 */

const STRIP_HEIGHT = 256;
const THRESHOLD = 127;

/** A line drawn with a round brush, or with the eraser. */
export class BrushStroke {
  /**
   * @param {number} size Diameter in pixels of the photograph.
   * @param {boolean} erases Whether it takes paint away.
   * @param {number} x Where it begins, in pixels of the photograph.
   * @param {number} y
   */
  constructor(size, erases, x, y) {
    this.size = size;
    this.erases = erases;
    this.path = new Path2D();
    this.path.moveTo(x, y);
    this.path.lineTo(x + 0.01, y); // a line without any length would draw no dot
    this.box = [x, y, x, y];
    this.#last = this.#middle = [x, y];
    this.#fresh = new Path2D(this.path);
    this.#grow(x, y);
  }

  #last;
  #middle;
  #fresh;

  /** Goes on to a point, in a curve through the middles between points. */
  extend(x, y) {
    const [lastX, lastY] = this.#last;
    if (x === lastX && y === lastY) return;
    const middle = [(lastX + x) / 2, (lastY + y) / 2];
    this.path.quadraticCurveTo(lastX, lastY, ...middle);
    this.#fresh.moveTo(...this.#middle);
    this.#fresh.quadraticCurveTo(lastX, lastY, ...middle);
    this.#middle = middle;
    this.#last = [x, y];
    this.#grow(x, y);
  }

  /** Its last point. */
  get end() {
    return this.#last;
  }

  /** Reaches its last point; nothing may be added afterwards. */
  finish() {
    this.path.lineTo(...this.#last);
    return this;
  }

  /** What has been added since the last call, as far as the newest point. */
  takeFresh() {
    const fresh = this.#fresh;
    fresh.moveTo(...this.#middle);
    fresh.lineTo(this.#last[0] + 0.01, this.#last[1]);
    this.#fresh = new Path2D();
    return fresh;
  }

  /** Draws the stroke, or a part of it, into a context whose units are pixels of the photograph. */
  draw(context, paint, path = this.path) {
    context.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = this.size;
    context.strokeStyle = paint;
    context.stroke(path);
  }

  #grow(x, y) {
    const reach = this.size / 2 + 1;
    this.box[0] = Math.min(this.box[0], x - reach);
    this.box[1] = Math.min(this.box[1], y - reach);
    this.box[2] = Math.max(this.box[2], x + reach);
    this.box[3] = Math.max(this.box[3], y + reach);
  }
}

/** A filled rectangle on whole pixels. */
export class RectangleStroke {
  constructor(left, top, right, bottom) {
    this.erases = false;
    this.box = [left, top, right, bottom];
  }

  /** The whole pixels that two corners span, cut at the photograph's edges; null if none. */
  static between([x, y], [otherX, otherY], width, height) {
    const clamp = (value, end) => Math.min(Math.max(value, 0), end);
    const left = clamp(Math.floor(Math.min(x, otherX)), width);
    const top = clamp(Math.floor(Math.min(y, otherY)), height);
    const right = clamp(Math.ceil(Math.max(x, otherX)), width);
    const bottom = clamp(Math.ceil(Math.max(y, otherY)), height);
    return right > left && bottom > top ? new RectangleStroke(left, top, right, bottom) : null;
  }

  draw(context, paint) {
    const [left, top, right, bottom] = this.box;
    context.globalCompositeOperation = "source-over";
    context.fillStyle = paint;
    context.fillRect(left, top, right - left, bottom - top);
  }
}

/** What a line drawn by hand, or from corner to corner, encloses. */
export class LassoStroke {
  erases = false;
  /** Whether every point changes the whole of it. */
  isArea = true;
  /** Whether it waits for the next corner. */
  isOpen = false;
  corners = 1;
  /** Where the next corner would be. */
  hint = null;
  #points = 1;

  constructor(x, y) {
    this.start = [x, y];
    this.path = new Path2D();
    this.path.moveTo(x, y);
    this.box = [x, y, x, y];
    this.end = this.start;
  }

  extend(x, y) {
    if (x === this.end[0] && y === this.end[1]) return;
    this.#points += 1;
    this.hint = null;
    this.path.lineTo(x, y);
    this.end = [x, y];
    this.box = [
      Math.min(this.box[0], x - 1),
      Math.min(this.box[1], y - 1),
      Math.max(this.box[2], x + 1),
      Math.max(this.box[3], y + 1),
    ];
  }

  /** Closes it; null if it encloses nothing. */
  finish() {
    this.hint = null;
    this.path.closePath();
    return this.#points > 2 ? this : null;
  }

  draw(context, paint) {
    context.globalCompositeOperation = "source-over";
    context.fillStyle = paint;
    const path = this.hint ? new Path2D(this.path) : this.path;
    if (this.hint) path.lineTo(...this.hint);
    context.fill(path);
    context.lineWidth = 1; // so that the line itself is seen before it encloses anything
    context.strokeStyle = paint;
    context.stroke(path);
  }
}

/** A bitmap, as a mask file has it, no larger than the box of what it marks. */
export class MaskStroke {
  erases = false;

  /** What is white in an image; null if nothing is. */
  static ofImage(image) {
    const { width, height } = image;
    const { data } = contextOf(width, height, (context) => context.drawImage(image, 0, 0));
    const marks = new Uint8Array(width * height);
    for (let index = 0, at = 0; index < marks.length; index += 1, at += 4) {
      const light = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      marks[index] = (light * data[at + 3]) / 255 > THRESHOLD ? 1 : 0;
    }
    return MaskStroke.#of(marks, width, height, 0, 0);
  }

  /** What strokes mark, with its edge moved outwards by some pixels; null if nothing is left. */
  static ofStrokes(photographWidth, photographHeight, strokes, pixels) {
    const reach = Math.abs(pixels);
    const [left, top, right, bottom] = boxOf(photographWidth, photographHeight, strokes, reach);
    const [width, height] = [right - left, bottom - top];
    if (width <= 0 || height <= 0) return null;
    const { data } = contextOf(width, height, (context) => {
      context.translate(-left, -top);
      for (const stroke of strokes) stroke.draw(context, "#fff");
    });
    let marks = new Uint8Array(width * height);
    for (let index = 0, at = 3; index < marks.length; index += 1, at += 4) {
      // Growing what is marked; to shrink, growing what is not.
      marks[index] = data[at] > THRESHOLD === pixels > 0 ? 1 : 0;
    }
    marks = grown(marks, height, width, width, 1, reach);
    marks = grown(marks, width, height, 1, width, reach);
    if (pixels < 0) marks = marks.map((mark) => 1 - mark);
    return MaskStroke.#of(marks, width, height, left, top);
  }

  static #of(marks, width, height, left, top) {
    const box = [width, height, 0, 0];
    for (let index = marks.indexOf(1); index >= 0; index = marks.indexOf(1, index + 1)) {
      const [x, y] = [index % width, Math.floor(index / width)];
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = y + 1;
    }
    if (!box[3]) return null;
    const stroke = new MaskStroke();
    stroke.box = [box[0] + left, box[1] + top, box[2] + left, box[3] + top];
    stroke.canvas = new OffscreenCanvas(box[2] - box[0], box[3] - box[1]);
    const context = stroke.canvas.getContext("2d");
    const image = context.createImageData(stroke.canvas.width, stroke.canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = box[1], target = 0; y < box[3]; y += 1) {
      for (let x = box[0]; x < box[2]; x += 1, target += 1) {
        if (marks[y * width + x]) pixels[target] = 0xffffffff;
      }
    }
    context.putImageData(image, 0, 0);
    return stroke;
  }

  draw(context, paint) {
    const [left, top] = this.box;
    // What is painted has to be masked before it meets the strokes that are there.
    const painted = new OffscreenCanvas(context.canvas.width, context.canvas.height);
    const own = painted.getContext("2d");
    own.setTransform(context.getTransform());
    own.imageSmoothingEnabled = false;
    own.drawImage(this.canvas, left, top);
    own.globalCompositeOperation = "source-in";
    own.fillStyle = paint;
    own.fillRect(left, top, this.canvas.width, this.canvas.height);
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "source-over";
    context.drawImage(painted, 0, 0);
    context.restore();
  }
}

function contextOf(width, height, draw) {
  const context = new OffscreenCanvas(width, height).getContext("2d");
  draw(context);
  context.setTransform(1, 0, 0, 1, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Marks every pixel of every line that has a mark within `reach` along the line. */
function grown(marks, lines, length, lineStep, step, reach) {
  const result = new Uint8Array(marks.length);
  for (let line = 0; line < lines; line += 1) {
    const start = line * lineStep;
    let inReach = 0;
    for (let index = 0; index < length + reach; index += 1) {
      if (index < length) inReach += marks[start + index * step];
      if (index > 2 * reach) inReach -= marks[start + (index - 2 * reach - 1) * step];
      if (index >= reach && inReach) result[start + (index - reach) * step] = 1;
    }
  }
  return result;
}

/** The part of a photograph that strokes may mark, and some pixels around it. */
function boxOf(width, height, strokes, around = 0) {
  const boxes = strokes.filter((stroke) => !stroke.erases).map((stroke) => stroke.box);
  return [
    Math.max(0, Math.floor(Math.min(width, ...boxes.map((box) => box[0]))) - around),
    Math.max(0, Math.floor(Math.min(height, ...boxes.map((box) => box[1]))) - around),
    Math.min(width, Math.ceil(Math.max(0, ...boxes.map((box) => box[2]))) + around),
    Math.min(height, Math.ceil(Math.max(0, ...boxes.map((box) => box[3]))) + around),
  ];
}

/**
 * Draws the strokes at the photograph's resolution and encodes them as a grey PNG, 255 = hole.
 *
 * @param {number} width Of the photograph, in pixels.
 * @param {number} height
 * @param {Array} strokes
 * @returns {Promise<{blob: Blob, holePixels: number}>}
 */
export async function encodeMask(width, height, strokes) {
  const [left, top, right, bottom] = boxOf(width, height, strokes);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, right - left);
  canvas.height = STRIP_HEIGHT;
  const context = canvas.getContext("2d", { willReadFrequently: true });

  const deflate = new CompressionStream("deflate");
  const compressed = new Response(deflate.readable).arrayBuffer();
  const writer = deflate.writable.getWriter();
  let holePixels = 0;
  for (let from = 0; from < height; from += STRIP_HEIGHT) {
    const to = Math.min(height, from + STRIP_HEIGHT);
    const rows = new Uint8Array((to - from) * (width + 1)); // each begins with its filter: none
    if (from < bottom && to > top && left < right) {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.setTransform(1, 0, 0, 1, -left, -from);
      for (const stroke of strokes) {
        if (stroke.box[1] < to && stroke.box[3] > from) stroke.draw(context, "#fff");
      }
      const { data } = context.getImageData(0, 0, canvas.width, to - from);
      for (let row = 0, source = 3; row < to - from; row += 1) {
        const start = row * (width + 1) + 1 + left;
        for (let target = start; target < start + canvas.width; target += 1, source += 4) {
          if (data[source] > THRESHOLD) {
            rows[target] = 255;
            holePixels += 1;
          }
        }
      }
    }
    await writer.write(rows);
  }
  await writer.close();

  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits; the zeros after it say grey, deflate, and not interlaced
  const blob = new Blob(
    [
      new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
      chunk("IHDR", new Uint8Array(header.buffer)),
      chunk("IDAT", new Uint8Array(await compressed)),
      chunk("IEND", new Uint8Array(0)),
    ],
    { type: "image/png" },
  );
  return { blob, holePixels };
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  for (let bit = 0; bit < 8; bit += 1) index = index & 1 ? 0xedb88320 ^ (index >>> 1) : index >>> 1;
  return index;
});

/** A chunk of a PNG: length, name, content, checksum of name and content. */
function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let index = 0; index < 4; index += 1) bytes[4 + index] = name.charCodeAt(index);
  bytes.set(content, 8);
  let crc = 0xffffffff;
  for (let index = 4; index < content.length + 8; index += 1) {
    crc = CRC_TABLE[(crc ^ bytes[index]) & 0xff] ^ (crc >>> 8);
  }
  view.setUint32(content.length + 8, ~crc >>> 0);
  return bytes;
}
