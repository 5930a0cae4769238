/**
 * Many at a time, or one alone: those who share run side by side; one who needs to be alone waits until they have
 * ended, and whoever comes after it waits until it has ended, so it is never overtaken.
 */
export class SharingLock {
  /** Ends when everybody before has ended. */
  #tail: Promise<unknown> = Promise.resolve();
  #sharing = new Set<Promise<unknown>>();

  async shared<T>(work: () => Promise<T>): Promise<T> {
    const running = this.#tail.then(work);
    const settled = running.catch(() => undefined);
    this.#sharing.add(settled);
    void settled.then(() => this.#sharing.delete(settled));
    return running;
  }

  /** Waits until it is alone. @returns how to end being alone */
  async alone(): Promise<() => void> {
    const before = Promise.all([this.#tail, ...this.#sharing]);
    let release = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#tail = before.then(() => ended);
    await before;
    return release;
  }
}
