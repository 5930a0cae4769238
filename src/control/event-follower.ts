/**
 * Follows a device's events from now on and hands each to a taker, for as long as it is not closed. A taker that throws
 * is logged and gets the next event all the same; if the log has overtaken this reader, it goes on from there and says so.
 */
import { TwinvolError } from '../core/faults.ts';
import type { EventView } from '../core/views.ts';
import type { Engine } from '../engine/api.ts';
import type { ControlLog } from './control-log.ts';

export class EventFollower {
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  /** @param missed events may have been missed: whatever depends on them has to look anew */
  constructor(engine: Pick<Engine, 'events'>, log: ControlLog, take: (event: EventView) => void, missed: () => void) {
    this.#ended = this.#follow(engine, log, take, missed);
  }

  close(): Promise<void> {
    this.#stop.abort();
    return this.#ended;
  }

  async #follow(engine: Pick<Engine, 'events'>, log: ControlLog, take: (event: EventView) => void, missed: () => void): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        for await (const event of engine.events({ signal })) {
          if (event.kind === 'exists') continue;
          try {
            take(event);
          } catch (error) {
            log.error({ err: error, event: event.seq }, 'an event could not be taken');
          }
        }
        return;
      } catch (error) {
        if (!(error instanceof TwinvolError) || error.code !== 'EVENTS_GONE') {
          log.error({ err: error }, 'the events of the device cannot be followed any more');
          return;
        }
        log.warn({ err: error }, 'events came faster than they could be taken; some were missed');
        missed();
      }
    }
  }
}
