/** Where the photograph lies on the stage: `stage = photograph * scale + offset`, in CSS pixels. */

const LARGEST_SCALE = 32;
const LARGEST_FIT = 4;
const KEPT_IN_SIGHT = 48;

export class Viewport {
  scale = 1;
  x = 0;
  y = 0;
  isFitted = true;
  #width = 1;
  #height = 1;
  #area = { left: 0, top: 0, width: 1, height: 1 };

  /** Tells the size of the photograph, in its pixels. */
  setPhotograph(width, height) {
    this.#width = width;
    this.#height = height;
  }

  /** Tells which part of the stage nothing else covers, in CSS pixels. */
  setArea(area) {
    const before = this.#area;
    this.#area = area;
    if (this.isFitted) {
      this.fit();
    } else {
      this.pan(
        area.left + area.width / 2 - before.left - before.width / 2,
        area.top + area.height / 2 - before.top - before.height / 2,
      );
    }
  }

  get fitScale() {
    const { width, height } = this.#area;
    return Math.min(width / this.#width, height / this.#height, LARGEST_FIT);
  }

  /** Shows the whole photograph in the middle. */
  fit() {
    this.scale = this.fitScale;
    this.x = this.#area.left + (this.#area.width - this.#width * this.scale) / 2;
    this.y = this.#area.top + (this.#area.height - this.#height * this.scale) / 2;
    this.isFitted = true;
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.isFitted = false;
    this.#keepInSight();
  }

  /** Zooms by a factor; what lies at (x, y) of the stage stays there. */
  zoomAt(x, y, factor) {
    const smallest = Math.min(this.fitScale / 4, 1);
    const scale = Math.min(Math.max(this.scale * factor, smallest), LARGEST_SCALE);
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.isFitted = false;
    this.#keepInSight();
  }

  /** Zooms about the middle of the free area. */
  zoomAtCentre(factor) {
    const { left, top, width, height } = this.#area;
    this.zoomAt(left + width / 2, top + height / 2, factor);
  }

  /** Moves just so far that a point of the stage is inside the free area. */
  reveal(x, y) {
    const { left, top, width, height } = this.#area;
    const dx = Math.max(left - x, 0) + Math.min(left + width - x, 0);
    const dy = Math.max(top - y, 0) + Math.min(top + height - y, 0);
    if (dx || dy) this.pan(dx, dy);
  }

  /** Zooms out until a box, in pixels of the photograph, is inside the free area. */
  include([x0, y0, x1, y1]) {
    const { left, top, width, height } = this.#area;
    for (let step = 0; step < 20; step += 1) {
      const [from, to] = [this.toStage(x0, y0), this.toStage(x1, y1)];
      const isInside = from[0] >= left && from[1] >= top;
      if (isInside && to[0] <= left + width && to[1] <= top + height) return;
      this.zoomAtCentre(0.9);
    }
  }

  toPhotograph(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  #keepInSight() {
    const { left, top, width, height } = this.#area;
    const shownWidth = this.#width * this.scale;
    const shownHeight = this.#height * this.scale;
    const marginX = Math.min(KEPT_IN_SIGHT, shownWidth);
    const marginY = Math.min(KEPT_IN_SIGHT, shownHeight);
    this.x = Math.min(Math.max(this.x, left + marginX - shownWidth), left + width - marginX);
    this.y = Math.min(Math.max(this.y, top + marginY - shownHeight), top + height - marginY);
  }
}
