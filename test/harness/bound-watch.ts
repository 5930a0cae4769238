/**
 * Watches what `status` says a crash would cost, so that it can be held against what a crash did cost.
 *
 * The crash comes some milliseconds after the last answer. What was written to in between may have been marked in
 * between, so each extent of it (4 MiB) may be copied again for each pair of its volume.
 */
import { INTENT_EXTENT_BYTES } from '../../src/core/units.ts';
import type { EngineProcess } from './engine-process.ts';
import { isKilled } from './operator.ts';
import type { World } from './world.ts';

const POLL_MS = 50;

export class BoundWatch {
  readonly #world: World;
  #statedBytes = 0;
  /** Extents written to since the question was asked whose answer is the last one. */
  #touched = new Set<string>();
  /** Since the question was asked that has no answer yet. */
  #touchedNext = new Set<string>();
  /** Pairs that existed at the last answer. */
  #pairs = '';

  constructor(world: World) {
    this.#world = world;
    world.onTouched = (volume, extent) => {
      const key = `${volume}/${extent}`;
      this.#touched.add(key);
      this.#touchedNext.add(key);
    };
  }

  /** Until the engine is gone. */
  async follow(engine: EngineProcess): Promise<void> {
    try {
      for (;;) {
        await this.ask(engine);
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } catch (error) {
      if (!isKilled(error)) throw error;
    }
  }

  async ask(engine: EngineProcess): Promise<void> {
    this.#touchedNext = new Set();
    const pairs = this.#pairsNow();
    const { durability } = await engine.call('device.status', {});
    this.#statedBytes = durability.resyncBoundBytes;
    this.#touched = this.#touchedNext;
    this.#pairs = pairs;
  }

  /** The most that a crash now may cost, by what was said; null where a pair was formed since then. */
  boundBytes(): number | null {
    if (this.#pairs !== this.#pairsNow()) return null;
    let bytes = this.#statedBytes;
    for (const key of this.#touched) {
      const [volume] = key.split('/');
      bytes +=
        INTENT_EXTENT_BYTES *
        this.#world.pairs.filter(({ primary, secondary }) => primary.name === volume || secondary.name === volume).length;
    }
    return bytes;
  }

  #pairsNow(): string {
    return this.#world.pairs
      .filter((pair) => pair.exists)
      .map(({ name }) => name)
      .join();
  }
}
