/**
 * Who works on what: commands on the same volumes and pairs go one after the other, all others side by side.
 *
 * A command names all the objects that it touches and gets them together or waits for them together, so two commands
 * never hold a part each (no deadlock). Waiting is in order of arrival: a later one never overtakes an earlier one that
 * wants the same object. Waiting is bounded for commands, and the error names who holds the object; what the engine
 * does by itself (a finished copy, a failed leg) waits without bound, because it has no one to tell.
 */
import { TwinvolError } from '../core/faults.ts';

/** `pair-ids`: ids of pairs are given out one at a time, in the order in which the journal gets them. */
export type LockKey = `volume:${number}` | `pair:${number}` | 'pair-ids';
export type Release = () => void;

type Waiter = { readonly keys: readonly LockKey[]; readonly owner: string; readonly grant: () => void };

/** A command waits this long for another one on the same object: longer than an inquiry's deadline. */
export const LOCK_WAIT_MS_DEFAULT: number = 10_000;

export class ObjectLocks {
  readonly #holders = new Map<LockKey, string>();
  readonly #waiters: Waiter[] = [];
  readonly #waitMs: number;

  constructor(waitMs: number = LOCK_WAIT_MS_DEFAULT) {
    this.#waitMs = waitMs;
  }

  /** Who holds the object right now, or null. */
  holderOf(key: LockKey): string | null {
    return this.#holders.get(key) ?? null;
  }

  /**
   * Runs `work` alone on its objects.
   * @param owner the command, as another operator should read it
   * @throws TwinvolError `VOLUME_HELD` when the wait is over; whatever `work` throws
   */
  async run<T>(keys: readonly LockKey[], owner: string, work: () => Promise<T>): Promise<T> {
    const release = await this.#acquire(keys, owner, this.#waitMs);
    try {
      return await work();
    } finally {
      release();
    }
  }

  /** The same without a bound on the wait, for what nobody waits for. */
  async runUnbounded<T>(keys: readonly LockKey[], owner: string, work: () => Promise<T>): Promise<T> {
    const release = await this.#acquire(keys, owner, null);
    try {
      return await work();
    } finally {
      release();
    }
  }

  /** Takes the objects until the returned function is called; waits without bound. */
  take(keys: readonly LockKey[], owner: string): Promise<Release> {
    return this.#acquire(keys, owner, null);
  }

  #acquire(keys: readonly LockKey[], owner: string, waitMs: number | null): Promise<Release> {
    const wanted = [...new Set(keys)];
    const blockedBy = (before: readonly Waiter[]): LockKey | undefined =>
      wanted.find((key) => this.#holders.has(key) || before.some((waiter) => waiter.keys.includes(key)));
    if (blockedBy(this.#waiters) === undefined) return Promise.resolve(this.#hold(wanted, owner));
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        const index = this.#waiters.indexOf(waiter);
        const key = blockedBy(this.#waiters.slice(0, index));
        this.#waiters.splice(index, 1);
        this.#grantWaiting();
        reject(this.#heldError(owner, key, waitMs ?? 0));
      };
      const timer = waitMs === null ? undefined : setTimeout(giveUp, waitMs);
      const waiter: Waiter = {
        keys: wanted,
        owner,
        grant: () => {
          clearTimeout(timer);
          resolve(this.#hold(wanted, owner));
        },
      };
      this.#waiters.push(waiter);
    });
  }

  #hold(keys: readonly LockKey[], owner: string): Release {
    for (const key of keys) {
      if (this.#holders.has(key)) throw new Error(`${key} is given twice`);
      this.#holders.set(key, owner);
    }
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      for (const key of keys) this.#holders.delete(key);
      this.#grantWaiting();
    };
  }

  #grantWaiting(): void {
    const wantedBefore = new Set<LockKey>();
    for (const waiter of [...this.#waiters]) {
      if (waiter.keys.some((key) => this.#holders.has(key) || wantedBefore.has(key))) {
        for (const key of waiter.keys) wantedBefore.add(key);
        continue;
      }
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      waiter.grant();
    }
  }

  #heldError(owner: string, key: LockKey | undefined, waitMs: number): TwinvolError {
    const holder = key === undefined ? undefined : this.#holders.get(key);
    const text = `${owner} gave up after ${waitMs} ms: ${key ?? 'an object'} is held by ${holder ?? 'a command that waits too'}; nothing was changed`;
    return new TwinvolError('VOLUME_HELD', text, { details: { object: key ?? null, holder: holder ?? null } });
  }
}
