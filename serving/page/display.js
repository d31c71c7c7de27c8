/** What is seen on the stage: the photograph, the painting over it, the brush, before and after. */

import { t } from "./language.js";

const TILE = 10;
const FADE_MILLISECONDS = 420;
const PIXELS_FROM_SCALE = 8;
const SHIMMER_INTERVAL = 33;

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

export class Display {
  /** The strokes that are shown; set them and call `refresh`. */
  strokes = [];
  /** How much of the width is shown as it was before, 0 to 1; null while nothing is compared. */
  split = null;
  /** Where the brush is: `{x, y, size, isDown}` in CSS pixels of the stage, or null. */
  brush = null;
  /** Corners of a rectangle in the making, in pixels of the photograph, or null. */
  rectangle = null;
  /** Left, top, right and bottom of a canvas in the making, in pixels of the photograph, or null. */
  frame = null;

  #viewport;
  #photograph = null;
  #image = null;
  #before = null;
  #showing = 0;
  #splitting = 0;
  #frame = 0;
  #area = { left: 0, top: 0, width: 1, height: 1 };
  #tiles = null;
  #isShimmering = false;

  constructor(viewport) {
    this.#viewport = viewport;
    for (const name of ["stage", "picture", "overlay", "ring", "divider", "labels"]) {
      this[name] = document.getElementById(name);
    }
    this.canvasArea = document.getElementById("canvas-area");
    this.canvasFrame = document.getElementById("canvas-frame");
    this.preview = document.getElementById("rectangle-preview");
    this.context = this.overlay.getContext("2d");
    const restart = () => {
      this.#tiles = null;
      this.refresh();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restart);
  }

  /**
   * Shows a photograph in place of the one before.
   *
   * @param {object} photograph With `image`, an element, `width` and `height`.
   * @param {boolean} fades Whether the old one fades away over the new one, its painting too.
   */
  async showPhotograph(photograph, fades) {
    if (photograph === this.#photograph) return;
    const turn = (this.#showing += 1);
    const { image } = photograph;
    await image.decode(); // or there would be a blink
    if (turn !== this.#showing) return; // another one has been asked for in the meantime
    const old = this.#image;
    this.#photograph = photograph;
    this.#image = image;
    this.picture.replaceChildren(image);
    if (!old || !fades || stillness.matches) return;
    const painting = this.overlay.cloneNode();
    painting.removeAttribute("id");
    painting.getContext("2d").drawImage(this.overlay, 0, 0);
    this.overlay.before(painting);
    this.picture.append(old);
    for (const [element, opacity] of [
      [old, 1],
      [painting, getComputedStyle(this.overlay).opacity],
    ]) {
      const fading = element.animate([{ opacity }, { opacity: 0 }], {
        duration: FADE_MILLISECONDS,
        easing: "ease-in-out",
      });
      fading.finished.finally(() => element !== this.#image && element.remove());
    }
  }

  /** Puts the original above the photograph, or takes it away (null). */
  async setBefore(photograph) {
    const turn = (this.#splitting += 1);
    this.#before?.remove();
    this.#before = null;
    if (!photograph) return;
    const image = photograph.image.cloneNode();
    await image.decode();
    if (turn !== this.#splitting) return;
    this.#before = image;
    this.picture.append(image);
    this.refresh();
  }

  /** Tells which part of the stage nothing else covers. */
  setArea(area) {
    this.#area = area;
    this.#viewport.setArea(area);
    this.refresh();
  }

  /** Draws everything anew in the next frame. */
  refresh() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Adds what is new of a stroke at once, without drawing the others again. */
  addFresh(stroke) {
    if (this.#frame) return; // all of it is drawn in a moment anyway
    this.#paint((paint) => stroke.draw(this.context, paint, stroke.takeFresh()));
  }

  /** Places the brush alone; cheaper than `refresh`. */
  placeBrush() {
    const { brush, ring } = this;
    ring.hidden = !brush;
    if (!brush) return;
    const diameter = Math.max(brush.size, 4);
    ring.style.width = ring.style.height = `${diameter}px`;
    ring.style.transform = `translate(${brush.x - diameter / 2}px, ${brush.y - diameter / 2}px)`;
    ring.toggleAttribute("data-down", Boolean(brush.isDown));
  }

  /** Lets the painting shimmer while the photograph is being filled. */
  shimmer(isOn) {
    if (this.#isShimmering === isOn) return;
    this.#isShimmering = isOn;
    if (!isOn) {
      this.refresh();
      return;
    }
    if (stillness.matches) return;
    let last = 0;
    const step = (time) => {
      if (!this.#isShimmering) return;
      if (time - last >= SHIMMER_INTERVAL && !this.#frame) {
        last = time;
        this.#tint(time / 40);
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #draw() {
    const { stage, overlay, picture } = this;
    if (!this.#photograph || stage.hidden) return;
    const { scale, x, y } = this.#viewport;
    const { width, height } = this.#photograph;
    Object.assign(picture.style, {
      left: `${x}px`,
      top: `${y}px`,
      width: `${width * scale}px`,
      height: `${height * scale}px`,
    });
    picture.toggleAttribute("data-pixels", scale >= PIXELS_FROM_SCALE);

    const ratio = this.#ratio;
    const pixelWidth = Math.round(stage.clientWidth * ratio);
    const pixelHeight = Math.round(stage.clientHeight * ratio);
    if (overlay.width !== pixelWidth || overlay.height !== pixelHeight) {
      overlay.width = pixelWidth;
      overlay.height = pixelHeight;
      this.#tiles = null;
    }
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, overlay.width, overlay.height);
    if (this.strokes.length && this.split === null) {
      this.#paint((paint) => {
        for (const stroke of this.strokes) stroke.draw(this.context, paint);
      });
    }
    this.placeBrush();
    place(
      this.preview,
      this.rectangle?.map((corner) => this.#viewport.toStage(...corner)),
    );
    const [left, top, right, bottom] = this.frame ?? [];
    const corners = [
      [left, top],
      [right, bottom],
    ].map((corner) => this.#viewport.toStage(...corner));
    for (const element of [this.canvasArea, this.canvasFrame]) {
      place(element, this.frame && corners);
    }
    this.#placeSplit();
  }

  get #ratio() {
    return Math.min(window.devicePixelRatio || 1, 2);
  }

  /** Calls `draw` with units, edges and paint of the photograph. */
  #paint(draw) {
    const { context } = this;
    const { scale, x, y } = this.#viewport;
    const ratio = this.#ratio;
    const matrix = new DOMMatrix([scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio]);
    const tiles = this.#pattern();
    tiles.setTransform(matrix.inverse());
    context.save();
    context.setTransform(matrix);
    context.beginPath();
    context.rect(0, 0, this.#photograph.width, this.#photograph.height);
    context.clip();
    draw(tiles);
    context.restore();
  }

  /** Colours what is painted anew, its stripes moved on by some pixels. */
  #tint(offset) {
    const { context, overlay } = this;
    const tiles = this.#pattern();
    tiles.setTransform(new DOMMatrix().translate(offset, 0));
    const ratio = this.#ratio;
    const boxes = this.strokes.map((stroke) => stroke.box);
    const [left, top] = this.#viewport.toStage(
      Math.min(...boxes.map((box) => box[0])),
      Math.min(...boxes.map((box) => box[1])),
    );
    const [right, bottom] = this.#viewport.toStage(
      Math.max(...boxes.map((box) => box[2])),
      Math.max(...boxes.map((box) => box[3])),
    );
    const startX = Math.max(0, Math.floor(left * ratio));
    const startY = Math.max(0, Math.floor(top * ratio));
    const endX = Math.min(overlay.width, Math.ceil(right * ratio));
    const endY = Math.min(overlay.height, Math.ceil(bottom * ratio));
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "source-atop";
    context.fillStyle = tiles;
    context.fillRect(startX, startY, Math.max(0, endX - startX), Math.max(0, endY - startY));
    context.restore();
  }

  /** Vermilion with diagonal stripes, so that it shows on a vermilion photograph too. */
  #pattern() {
    if (this.#tiles) return this.#tiles;
    const style = getComputedStyle(document.documentElement);
    const side = Math.round(TILE * this.#ratio);
    const tile = document.createElement("canvas");
    tile.width = tile.height = side;
    const context = tile.getContext("2d");
    context.fillStyle = style.getPropertyValue("--accent");
    context.fillRect(0, 0, side, side);
    context.strokeStyle = style.getPropertyValue("--accent-light");
    context.lineWidth = side / 5;
    for (const shift of [-side, 0, side]) {
      context.moveTo(shift - side / 2, side * 1.5);
      context.lineTo(shift + side * 1.5, -side / 2);
    }
    context.stroke();
    this.#tiles = this.context.createPattern(tile, "repeat");
    return this.#tiles;
  }

  #placeSplit() {
    const isOn = this.split !== null && this.#before !== null;
    this.divider.hidden = this.labels.hidden = !isOn;
    if (!isOn) return;
    const { width, height } = this.#photograph;
    const [left, top] = this.#viewport.toStage(0, 0);
    const [right, bottom] = this.#viewport.toStage(width, height);
    // The handle and the labels stay where they can be seen, however large the photograph is.
    const area = this.#area;
    const seenTop = Math.max(top, area.top);
    const seenBottom = Math.min(bottom, area.top + area.height);
    const seenLeft = Math.max(left, area.left);
    const seenRight = Math.min(right, area.left + area.width);
    this.#before.style.clipPath = `inset(0 ${(1 - this.split) * 100}% 0 0)`;
    const { divider, labels } = this;
    divider.style.transform = `translate(${left + (right - left) * this.split}px, ${seenTop}px)`;
    divider.style.height = `${Math.max(0, seenBottom - seenTop)}px`;
    const percent = Math.round(this.split * 100);
    divider.setAttribute("aria-valuenow", String(percent));
    divider.setAttribute(
      "aria-valuetext",
      t("{before} % before, {after} % after", { before: percent, after: 100 - percent }),
    );
    labels.style.transform = `translate(${seenLeft}px, ${seenTop}px)`;
    labels.style.width = `${Math.max(0, seenRight - seenLeft)}px`;
    labels.firstElementChild.style.opacity = this.split > 0.15 ? "1" : "0";
    labels.lastElementChild.style.opacity = this.split < 0.85 ? "1" : "0";
  }
}

/** Spans an element between two corners on the stage, or hides it. */
function place(element, corners) {
  element.hidden = !corners;
  if (!corners) return;
  const [from, to] = corners;
  const left = Math.min(from[0], to[0]);
  const top = Math.min(from[1], to[1]);
  element.style.transform = `translate(${left}px, ${top}px)`;
  element.style.width = `${Math.abs(from[0] - to[0])}px`;
  element.style.height = `${Math.abs(from[1] - to[1])}px`;
}
