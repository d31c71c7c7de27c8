/**
 * Pointers on the stage, told apart: painting, panning, zooming.
 *
 * One finger, a pen or the left button paints. Two fingers, the middle button, or the left one with
 * the space bar pan; two fingers and the wheel zoom. A second finger that follows the first one at
 * once takes back the dab the first has made.
 */

const SECOND_FINGER_MILLISECONDS = 300;

/**
 * @param {HTMLElement} stage
 * @param {object} handlers
 * @param {() => boolean} handlers.wantsPan Whether the left button pans just now.
 * @param {(point: number[]) => void} handlers.start A stroke begins. Points are
 *     `[x, y]` in CSS pixels of the stage.
 * @param {(points: number[][]) => void} handlers.move It goes on through these points.
 * @param {() => void} handlers.end
 * @param {() => void} handlers.cancel It was not meant.
 * @param {(point: number[] | null, type: string) => void} handlers.hover
 * @param {(dx: number, dy: number) => void} handlers.pan
 * @param {(point: number[], factor: number) => void} handlers.zoom
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
      handlers.start(point);
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

  // By itself the middle button scrolls on some systems, and pastes on others.
  for (const type of ["mousedown", "mouseup", "auxclick"]) {
    stage.addEventListener(type, (event) => event.button === 1 && event.preventDefault());
  }

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      const speed = event.ctrlKey ? 0.01 : 0.0015; // a pinch on a touch pad comes as ctrl + wheel
      handlers.zoom(position(event), Math.exp(-Math.max(-400, Math.min(400, pixels)) * speed));
    },
    { passive: false },
  );
}

function pinch(touches) {
  const [[x, y], [otherX, otherY]] = [...touches.values()];
  return {
    middle: [(x + otherX) / 2, (y + otherY) / 2],
    distance: Math.hypot(x - otherX, y - otherY),
  };
}
