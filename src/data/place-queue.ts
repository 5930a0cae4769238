/**
 * Places for work that only so much of may run at once; who finds none waits in turn, and may give up while it waits.
 */
export type Waiting = {
  /** The place, or null if it was given up before there was one. */
  readonly place: Promise<number | null>;
  /** Gives up. Without effect once there is a place. */
  cancel(): void;
};

export class PlaceQueue {
  readonly #free: number[];
  readonly #waiting: Array<(place: number | null) => void> = [];

  /** @param places the numbers of the places */
  constructor(places: readonly number[]) {
    this.#free = [...places];
  }

  take(): Waiting {
    const free = this.#free.shift();
    if (free !== undefined) return { place: Promise.resolve(free), cancel: () => {} };
    let settle: (place: number | null) => void = () => {};
    const place = new Promise<number | null>((resolve) => {
      settle = resolve;
    });
    this.#waiting.push(settle);
    const cancel = (): void => {
      const at = this.#waiting.indexOf(settle);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      settle(null);
    };
    return { place, cancel };
  }

  give(place: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(place);
    else next(place);
  }
}
