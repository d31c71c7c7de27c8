/**
 * Everything that can be undone: a line of states, of which one is current.
 *
 * A state is `{photograph, strokes}`: which photograph is shown, and what is painted over it. States
 * share their strokes and photographs, so a step back costs no copy of any pixels, and a result, or
 * a newly opened photograph, is undone the same way as a stroke.
 */
export class Timeline {
  #states = [];
  #index = -1;

  /** The current state, or undefined before the first one. */
  get current() {
    return this.#states[this.#index];
  }

  get canUndo() {
    return this.#index > 0;
  }

  get canRedo() {
    return this.#index < this.#states.length - 1;
  }

  /** All states, for whoever must know what is still reachable. */
  get states() {
    return this.#states;
  }

  /** Makes a state current, and forgets what had been undone before it. */
  push(state) {
    this.#states.splice(this.#index + 1);
    this.#states.push(state);
    this.#index += 1;
  }

  undo() {
    if (this.canUndo) this.#index -= 1;
    return this.current;
  }

  redo() {
    if (this.canRedo) this.#index += 1;
    return this.current;
  }
}
