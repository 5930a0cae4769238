/**
 * What the data plane tells by itself: finished copies, failed legs, connections, lost workers. Each becomes an event of
 * the pair machine, carried out alone on its pair and in the order of arrival, or an event for the operators.
 */
import type { PairEvent, PairSide } from '../core/pair-machine.ts';
import type { DeviceContext } from './context.ts';
import type { PairShell } from './pair-shell.ts';

/** A connection that is open, for the `exists` records. */
export type OpenClient = { readonly id: number; readonly volume: number | null; readonly peer: string };

export class Happenings {
  readonly #context: DeviceContext;
  readonly #shell: PairShell;
  readonly #running = new Set<Promise<void>>();
  readonly #clients = new Map<number, OpenClient>();
  #isClosing = false;

  constructor(context: DeviceContext, shell: PairShell) {
    this.#context = context;
    this.#shell = shell;
  }

  clients(): readonly OpenClient[] {
    return [...this.#clients.values()];
  }

  listen(): void {
    const { plane, events, log } = this.#context;
    plane.on('copyDone', ({ pair }) => this.#happened(pair, () => ({ event: 'copy-done' })));
    plane.on('copyFailed', ({ pair, leg, code, message }) => {
      log.warn({ pair, leg, code }, message);
      this.#happened(pair, () => ({ event: 'copy-failed', leg: this.#sideOf(pair, leg), code }));
    });
    plane.on('legFailed', ({ pair, leg, code, message }) => {
      log.warn({ pair, leg, code }, message);
      this.#happened(pair, () => ({ event: leg === 'primary' ? 'primary-failed' : 'secondary-failed', code }));
    });
    plane.on('workerLost', ({ worker, isReplaced, message }) => {
      const text = isReplaced ? 'a worker died and was started again' : 'a worker died, and what it did goes on without it or has failed';
      log.error({ worker }, `${text}: ${message}`);
      events.append('warning', 'device', worker, { text, message });
    });
    plane.on('clientOpened', ({ id, volume, peer }) => {
      this.#clients.set(id, { id, volume, peer });
      events.append('create', 'client', id, { volume, peer });
    });
    plane.on('clientClosed', ({ id, volume, peer, reason }) => {
      if (!this.#clients.delete(id)) return;
      events.append('destroy', 'client', id, { volume, peer, reason });
    });
  }

  /** Takes nothing more in, and waits for what is being carried out. What comes later is found by the next start. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await Promise.allSettled(this.#running);
  }

  #happened(pair: number, eventNow: () => PairEvent): void {
    if (this.#isClosing) return;
    const running = this.#context.locks.runUnbounded([`pair:${pair}`], 'the engine itself', () => this.#shell.happening(pair, eventNow()));
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, (error: unknown) => {
      forget();
      this.#context.log.error({ err: error, pair }, 'a happening of a pair was lost');
    });
  }

  /** A copy's source is the primary, or the secondary in a restore. */
  #sideOf(pair: number, leg: 'source' | 'target' | 'worker'): PairSide | 'copy' {
    if (leg === 'worker') return 'copy';
    const isRestore = this.#context.pairs.row(pair)?.copy === 'restore';
    return (leg === 'source') === isRestore ? 'secondary' : 'primary';
  }
}
