/**
 * Test volumes that misbehave on purpose: rules that the data plane applies to a volume's requests. Not kept across a
 * restart: a fault is an experiment, and a device that starts is whole.
 */
import { TwinvolError } from '../core/faults.ts';
import type { VolumeRow } from '../core/rows.ts';
import type { FaultAddInput, FaultRule, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';

const RULES_PER_VOLUME_MAX = 64;
const LATENCY_MS_MAX = 600_000;

export class FaultCommands {
  readonly #context: DeviceContext;
  readonly #rules = new Map<number, FaultRule>();
  #nextId = 1;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /** Resolves when every lane knows the rule: a request that is sent from then on meets it. */
  async add(input: FaultAddInput): Promise<FaultRule> {
    const row = this.#context.store.tables.volume(input.volume);
    if (this.#ofVolume(row.number).length >= RULES_PER_VOLUME_MAX) {
      throw new TwinvolError('LIMIT', `${row.name} has ${RULES_PER_VOLUME_MAX} faults, which is the limit`, {
        remedy: 'clear some with twinvol fault clear',
      });
    }
    const rule = ruleFrom(input, row, this.#nextId);
    this.#nextId += 1;
    this.#rules.set(rule.id, rule);
    await this.#tell(row.number);
    this.#context.events.append('notice', 'volume', row.number, { text: 'a fault was set on the volume', fault: rule });
    return rule;
  }

  list(): readonly FaultRule[] {
    return [...this.#rules.values()].map((rule) => {
      const { hits, left } = this.#context.plane.faultCounters(rule.id);
      return { ...rule, hits, count: left, expired: left === 0 };
    });
  }

  /**
   * Resolves when no lane knows the rules any more.
   * @returns how many were taken away
   * @throws TwinvolError `FAULT_NOT_FOUND` for a number that no rule has
   */
  async clear(input: { readonly id?: number; readonly volume?: VolumeRef }): Promise<number> {
    if (input.id !== undefined && !this.#rules.has(input.id))
      throw new TwinvolError('FAULT_NOT_FOUND', `there is no fault ${input.id}`, { details: { id: input.id } });
    const volume = input.volume === undefined ? undefined : this.#context.store.tables.volume(input.volume).number;
    const gone = [...this.#rules.values()].filter(
      (rule) => (input.id === undefined || rule.id === input.id) && (volume === undefined || rule.volume === volume),
    );
    for (const rule of gone) this.#rules.delete(rule.id);
    for (const number of new Set(gone.map((rule) => rule.volume))) {
      await this.#tell(number);
      this.#context.events.append('notice', 'volume', number, { text: 'faults of the volume were cleared' });
    }
    return gone.length;
  }

  /** The volume is gone; its number may be given to another one. */
  forget(volume: number): void {
    for (const rule of this.#ofVolume(volume)) this.#rules.delete(rule.id);
  }

  #ofVolume(volume: number): readonly FaultRule[] {
    return [...this.#rules.values()].filter((rule) => rule.volume === volume);
  }

  async #tell(volume: number): Promise<void> {
    if (this.#context.store.tables.findVolume(volume) !== undefined) await this.#context.plane.faultsSet(volume, this.#ofVolume(volume));
  }
}

const ruleFrom = (input: FaultAddInput, row: VolumeRow, id: number): FaultRule => {
  const { error = 'any', errno = 'EIO', offset = 0, rate = 1, latencyMs = 0, count = null, seed = id } = input;
  const length = input.length ?? Math.max(0, row.capacityBytes - offset);
  const refuse = (text: string): TwinvolError => new TwinvolError('USAGE', `fault add refused: ${text}`);
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 1 || offset + length > row.capacityBytes) {
    throw refuse(`bytes ${offset} to ${offset + length} are not in ${row.name}, which has ${row.capacityBytes}`);
  }
  if (!(rate >= 0 && rate <= 1)) throw refuse(`the rate ${rate} is not between 0 and 1`);
  if (!(latencyMs >= 0 && latencyMs <= LATENCY_MS_MAX)) throw refuse(`the latency ${latencyMs} ms is not between 0 and ${LATENCY_MS_MAX}`);
  if (count !== null && !(Number.isSafeInteger(count) && count >= 1)) throw refuse(`${count} is no number of times`);
  if (!Number.isSafeInteger(seed) || seed < 0) throw refuse(`${seed} is no seed`);
  return { id, volume: row.number, error, errno, offset, length, rate, latencyMs, count, seed, hits: 0, expired: false };
};
