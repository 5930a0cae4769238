/**
 * What the agents do, as events of the device: who came and went, who was turned away, and what was mounted or unmounted.
 *
 * Told sparingly: a stranger who knocks all the time, or a host whose mounts flap, must not push everything else out of the
 * event log. The mount table has the last state in any case.
 */
import { factText } from '../core/inquiry-text.ts';
import type { EventView } from '../core/views.ts';
import type { InquiryService } from './inquiry-service.ts';
import type { MountChange } from './mount-table.ts';

const REFUSAL_MS = 10_000;

type Tell = (kind: 'notice' | 'warning', host: string, data: EventView['data']) => void;

/** @param nameOf a volume's name by its number; null when it is gone */
export const tellAgentEvents = (service: InquiryService, tell: Tell, nameOf: (volume: number) => string | null): void => {
  let untold = 0;
  let toldAtMs = Number.NEGATIVE_INFINITY;
  service.on('connected', ({ host, transport, pid, isPrivileged }) => {
    tell('notice', host, { agent: 'connected', transport, pid, isPrivileged });
  });
  service.on('disconnected', (host, reason) => tell('notice', host, { agent: 'disconnected', reason }));
  service.on('refused', (peer, host, reason) => {
    const atMs = performance.now();
    if (atMs - toldAtMs < REFUSAL_MS) {
      untold += 1;
      return;
    }
    tell('notice', host ?? 'unknown', { agent: 'refused', peer, reason, untoldBefore: untold });
    toldAtMs = atMs;
    untold = 0;
  });
  service.on('contested', (host, pids) => {
    tell('warning', host, {
      agent: 'contested',
      pids,
      text: 'two agents of one host throw each other out: give each machine a name of its own',
    });
  });
  const mounts = new MountNotices(tell, nameOf);
  service.on('mounts', (change) => mounts.take(change));
};

/** At most so many changes of one host are told within a while. */
const CHANGES_MAX = 20;
const CHANGES_MS = 10_000;
const LINES_MAX = 20;
const LINE_CHARS_MAX = 500;

class MountNotices {
  readonly #tell: Tell;
  readonly #nameOf: (volume: number) => string | null;
  readonly #told = new Map<string, { sinceMs: number; count: number; untold: number }>();

  constructor(tell: Tell, nameOf: (volume: number) => string | null) {
    this.#tell = tell;
    this.#nameOf = nameOf;
  }

  take({ host, volume, appeared, vanished }: MountChange): void {
    const untoldBefore = this.#admit(host);
    if (untoldBefore === null) return;
    const name = this.#nameOf(volume) ?? `volume ${volume}`;
    const lines = (facts: MountChange['appeared']): readonly string[] => {
      const uses = facts.filter((fact) => fact.kind !== 'not-mounted');
      return uses.slice(0, LINES_MAX).map((fact) => factText(host, name, fact).slice(0, LINE_CHARS_MAX));
    };
    this.#tell('notice', host, { volume, appeared: lines(appeared), vanished: lines(vanished), untoldBefore });
  }

  /** How many changes of the host were not told before this one; null: nor is this one. */
  #admit(host: string): number | null {
    const atMs = performance.now();
    const told = this.#told.get(host);
    if (told === undefined || atMs - told.sinceMs > CHANGES_MS) {
      this.#told.set(host, { sinceMs: atMs, count: 1, untold: 0 });
      return told?.untold ?? 0;
    }
    told.count += 1;
    if (told.count <= CHANGES_MAX) return 0;
    told.untold += 1;
    return null;
  }
}
