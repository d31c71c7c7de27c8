/**
 * Pointers on the stage, told apart: painting, panning, zooming.
 *
 * One finger, a pen or the left button paints. Two fingers, the middle button, or the left one with
 * the space bar pan; two fingers and the wheel zoom. A second finger that follows the first one at
 * once takes back the dab the first has made.
 */

const SECOND_FINGER_MILLISECONDS = 300;
const PIXELS_PER_DELTA = [1, 16, 400]; // by the event's deltaMode: pixels, lines, pages
const WHEEL_SPEED = 0.0015; // logarithm of the zoom factor, per pixel
const PINCH_SPEED = 0.01; // the same: browsers report a pinch by the factor f as -100 ln f pixels
const LARGEST_PINCH = 50; // pixels; what is larger comes from a wheel
const LARGEST_WHEEL = 400;

/**
 * @param {HTMLElement} stage
 * @param {object} handlers
 * @param {() => boolean} handlers.wantsPan Whether the left button pans just now.
 * @param {(point: number[], event: PointerEvent) => void} handlers.start A stroke begins. Points
 *     are `[x, y]` in CSS pixels of the stage.
 * @param {(points: number[][]) => void} handlers.move It goes on through these points.
 * @param {() => void} handlers.end
 * @param {() => void} handlers.cancel It was not meant.
 * @param {(point: number[] | null, type: string) => void} handlers.hover
 * @param {(dx: number, dy: number) => void} handlers.pan
 * @param {(point: number[], factor: number) => void} handlers.zoom
 * @param {(factor: number) => void} handlers.resize The wheel turns while Alt is down.
 */
export function listen(stage, handlers) {
  const touches = new Map();
  let painting = null;
  let panning = null;

  const position = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const stopPainting = (isMeant) => {
    if (!painting) return;
    painting = null;
    if (isMeant) handlers.end();
    else handlers.cancel();
  };

  stage.addEventListener("pointerdown", (event) => {
    const point = position(event);
    if (event.pointerType === "touch") {
      touches.set(event.pointerId, point);
      if (touches.size === 2) {
        const age = painting ? event.timeStamp - painting.since : Infinity;
        stopPainting(age > SECOND_FINGER_MILLISECONDS);
      }
      if (touches.size > 1) return;
    }
    if (painting || panning) return;
    stage.setPointerCapture(event.pointerId);
    if (event.button === 1 || (event.button === 0 && handlers.wantsPan())) {
      panning = { id: event.pointerId, point };
    } else if (event.button === 0) {
      painting = { id: event.pointerId, since: event.timeStamp };
      handlers.start(point, event);
    }
  });

  stage.addEventListener("pointermove", (event) => {
    const point = position(event);
    if (touches.size > 1 && touches.has(event.pointerId)) {
      const before = pinch(touches);
      touches.set(event.pointerId, point);
      const after = pinch(touches);
      handlers.pan(after.middle[0] - before.middle[0], after.middle[1] - before.middle[1]);
      if (before.distance > 0) handlers.zoom(after.middle, after.distance / before.distance);
      return;
    }
    if (touches.has(event.pointerId)) touches.set(event.pointerId, point);
    if (panning?.id === event.pointerId) {
      handlers.pan(point[0] - panning.point[0], point[1] - panning.point[1]);
      panning.point = point;
    } else if (painting?.id === event.pointerId) {
      const events = event.getCoalescedEvents?.() ?? [];
      handlers.move((events.length ? events : [event]).map(position));
    }
    handlers.hover(point, event.pointerType);
  });

  const release = (event, isMeant) => {
    touches.delete(event.pointerId);
    if (panning?.id === event.pointerId) panning = null;
    if (painting?.id === event.pointerId) stopPainting(isMeant);
    if (event.pointerType === "touch") handlers.hover(null, "touch");
  };
  stage.addEventListener("pointerup", (event) => release(event, true));
  stage.addEventListener("pointercancel", (event) => release(event, false));
  stage.addEventListener("pointerleave", (event) => handlers.hover(null, event.pointerType));

  // Chromium takes a stroke that ends in motion for a fling, in spite of `touch-action: none`, and
  // ignores a tap on a button while the fling lasts.
  stage.addEventListener("touchmove", (event) => event.preventDefault(), { passive: false });

  // By itself the middle button scrolls on some systems, and pastes on others.
  for (const type of ["mousedown", "mouseup", "auxclick"]) {
    stage.addEventListener(type, (event) => event.button === 1 && event.preventDefault());
  }

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.altKey) handlers.resize(wheelFactor(event));
      else handlers.zoom(position(event), wheelFactor(event));
    },
    { passive: false },
  );
}

let isControlDown = false;
for (const type of ["keydown", "keyup"]) {
  window.addEventListener(type, ({ key }) => {
    if (key === "Control") isControlDown = type === "keydown";
  });
}
window.addEventListener("blur", () => {
  isControlDown = false;
});

/** The zoom factor of a wheel event; a pinch on a touch pad is one with `ctrlKey` and no key down. */
function wheelFactor({ deltaY, deltaMode, ctrlKey }) {
  const pixels = deltaY * PIXELS_PER_DELTA[deltaMode];
  const isPinch = ctrlKey && !isControlDown && deltaMode === 0 && Math.abs(pixels) < LARGEST_PINCH;
  const bounded = Math.max(-LARGEST_WHEEL, Math.min(LARGEST_WHEEL, pixels));
  return Math.exp(-bounded * (isPinch ? PINCH_SPEED : WHEEL_SPEED));
}

function pinch(touches) {
  const [[x, y], [otherX, otherY]] = [...touches.values()];
  return {
    middle: [(x + otherX) / 2, (y + otherY) / 2],
    distance: Math.hypot(x - otherX, y - otherY),
  };
}
