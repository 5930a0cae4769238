/**
 * How a pair enters the data plane and leaves it: its bitmap files, the intents of its volumes, and which workers have
 * to know it. What happens to it in between is switched at the write gate (data/pair-switch.ts).
 */
import type { Copies } from './copies.ts';
import type { PairSpec } from './plane-api.ts';
import { PairState, type PlaneStore, type VolumeState } from './plane-state.ts';
import type { Roster } from './roster.ts';
import type { WorkerSet } from './worker-set.ts';
import type { WriteGate } from './write-gate.ts';

export type PairMembershipOptions = {
  readonly store: PlaneStore;
  readonly roster: Roster;
  readonly workers: WorkerSet;
  readonly gate: WriteGate;
  readonly copies: Copies;
  /** Sends a changed volume to every worker that knows it, and waits until they have taken it in. */
  readonly tellAgain: (volume: VolumeState) => Promise<void>;
  /** A bitmap or intent file was not as it was left. */
  readonly onDamage: (text: string) => void;
};

export type AttachOptions = { readonly fresh: boolean; readonly distrust?: boolean };
export type AttachedPair = { readonly recoveredBytes: number; readonly dirtyBytes: number };

export class PairMembership {
  readonly #options: PairMembershipOptions;

  constructor(options: PairMembershipOptions) {
    this.#options = options;
  }

  /** See `DataPlane.pairAttach`. */
  async attach(spec: PairSpec, options: AttachOptions): Promise<AttachedPair> {
    const { roster, store, onDamage } = this.#options;
    const primary = roster.volume(spec.primary);
    const secondary = roster.volume(spec.secondary);
    primary.openIntents(options.fresh);
    secondary.openIntents(options.fresh);
    const pair = new PairState(spec, primary, store, options.fresh);
    let recovered = 0;
    if (!options.fresh) {
      // Nobody else knows the pair yet, so its files are this call's alone.
      recovered = pair.addIntents(primary.intents, 'primary') + pair.addIntents(secondary.intents, 'secondary');
      if (options.distrust === true) recovered += pair.distrustAll();
      if (recovered > 0) pair.persist();
      pair.recoverSecondaryTimes(spec.secondaryWritten);
      for (const text of [...primary.damage, ...secondary.damage, ...pair.damage]) onDamage(text);
    }
    roster.addPair(pair);
    await this.#tell(pair, primary, secondary);
    return { recoveredBytes: Math.min(pair.capacityBytes * 2, recovered * spec.dirtyRegionBytes), dirtyBytes: pair.dirtyBytes().union };
  }

  /** Stops its copy and verify, and deletes its bitmap files; intents go with the last pair of a volume. */
  async detach(id: number): Promise<void> {
    const { roster, workers, gate, copies, tellAgain } = this.#options;
    const pair = roster.pairs.get(id);
    if (pair === undefined) return;
    await Promise.all([copies.stop(id), copies.stopVerify(id)]);
    await gate.closedFromMain(() => pair.apply('idle', 'keep'));
    roster.removePair(pair);
    for (const link of workers.links()) link.toldPairs.delete(id);
    workers.broadcast({ type: 'pair-gone', id });
    await workers.barrier();
    await pair.lockFiles();
    pair.close(true);
    for (const number of [pair.spec.primary, pair.spec.secondary]) {
      const volume = roster.volumes.get(number);
      if (volume === undefined || roster.pairsOf(number).length > 0 || volume.intents === null) continue;
      const { intents } = volume;
      volume.intents = null;
      await tellAgain(volume);
      intents.file.remove();
    }
  }

  /** Workers that know one of the volumes have to know the pair before it is switched; others hear of it when they need it. */
  async #tell(pair: PairState, primary: VolumeState, secondary: VolumeState): Promise<void> {
    const { workers } = this.#options;
    const links = workers
      .links()
      .filter(({ toldVolumes }) => toldVolumes.has(primary.spec.number) || toldVolumes.has(secondary.spec.number));
    for (const link of links) {
      workers.tellPair(link, pair, primary, secondary);
      // Told before without intents: tell again.
      link.send(primary.message());
      link.send(secondary.message());
    }
    if (links.length > 0) await workers.barrier();
  }
}
