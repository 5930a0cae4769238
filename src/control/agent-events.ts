/**
 * What the agents do, as events of the device: who came and went, who was turned away, and what was mounted or unmounted.
 *
 * Refusals are told sparingly: a stranger who knocks all the time must not push everything else out of the event log.
 */
import { factText } from '../core/inquiry-text.ts';
import type { EventView } from '../core/views.ts';
import type { InquiryService } from './inquiry-service.ts';

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
  service.on('mounts', ({ host, volume, appeared, vanished }) => {
    const name = nameOf(volume) ?? `volume ${volume}`;
    const lines = (facts: typeof appeared): readonly string[] =>
      facts.filter((fact) => fact.kind !== 'not-mounted').map((fact) => factText(host, name, fact));
    tell('notice', host, { volume, appeared: lines(appeared), vanished: lines(vanished) });
  });
};
