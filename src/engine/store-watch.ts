/**
 * Looks now and then whether the store is still where it was, and tells the operators when it is gone or back.
 *
 * A directory that is deleted or moved takes nothing from an engine that has its files open: hosts go on reading and
 * writing what no next start will find. So it is said at once, flushes fail (data/flush-group.ts), and no change of the
 * tables is taken (`Store.commit`), until the directory is back.
 *
 * The same for a physical volume's file that somebody unlinks or cuts short: what was behind the cut reads as an error, and as
 * zeros when a write makes the file long again, so it counts as a medium that lost what was written there.
 */
import fs from 'node:fs';
import type { DeviceContext } from './context.ts';

const PERIOD_MS = 1000;
/** Files looked at in one period: a store may have thousands. */
const FILES_MAX = 256;

export class StoreWatch {
  readonly #context: DeviceContext;
  readonly #timer: NodeJS.Timeout;
  #wasGone = false;
  /** Physical volumes whose file is not what it was. */
  readonly #damaged = new Set<number>();
  #nextFile = 0;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.#timer = setInterval(() => this.#look(), PERIOD_MS).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { store, events, log } = this.#context;
    const { isGone, directory } = store;
    if (!isGone) this.#lookAtFiles();
    if (isGone === this.#wasGone) return;
    this.#wasGone = isGone;
    const text = isGone
      ? 'the store was deleted or moved while the engine runs: flushes fail and nothing can be changed; move it back, or copy the volumes elsewhere over NBD before the engine ends'
      : 'the store is back where it was';
    log[isGone ? 'error' : 'info']({ directory }, text);
    events.append(isGone ? 'warning' : 'notice', 'device', 'store', { text, directory });
  }

  #lookAtFiles(): void {
    const { store } = this.#context;
    const pvs = store.tables.pvs();
    for (let count = Math.min(FILES_MAX, pvs.length); count > 0; count -= 1) {
      this.#nextFile = (this.#nextFile + 1) % pvs.length;
      const { number } = pvs[this.#nextFile] as { readonly number: number };
      const what = this.#damaged.has(number) ? null : damageOf(store.pvFd(number), store.pvBytes);
      if (what === null) continue;
      this.#damaged.add(number);
      this.#tellDamaged(number, what);
    }
  }

  #tellDamaged(number: number, what: string): void {
    const { store, plane, events, log } = this.#context;
    const file = store.pvPath(number);
    const text = `the file of physical volume ${number} ${what} while the engine runs: copy what is needed elsewhere over NBD before the engine ends, and verify the pairs on it`;
    log.error({ pv: number, file }, text);
    events.append('warning', 'device', 'store', { text, pv: number, file });
    plane.mediumFailed([number]);
  }
}

/** What has become of a file; null: nothing, or nobody can say. */
const damageOf = (fd: number, bytes: number): string | null => {
  try {
    const { nlink, size } = fs.fstatSync(fd);
    if (nlink === 0) return 'was deleted';
    return size < bytes ? `was cut to ${size} of ${bytes} bytes` : null;
  } catch {
    return null;
  }
};
