/**
 * A data plane that moves no data: it writes down what the engine asks of it, in order and together with the journal's
 * commits, and says what the test makes up (a copy that is done, a leg that fails).
 *
 * Fault model: any method or commit can be told to fail, or to be held until the test lets it go on; a switch that
 * demands cleanness can be told that something is dirty. It never answers wrongly without being told to.
 */
import { EventEmitter } from 'node:events';
import { TwinvolError } from '../../src/core/faults.ts';
import type { TableOp } from '../../src/core/rows.ts';
import type { ClientView } from '../../src/core/views.ts';
import type { DataPlaneOptions } from '../../src/data/plane.ts';
import type { DataPlane, PairSwitch, PlaneEvents, VolumeSpec } from '../../src/data/plane-api.ts';
import type { Store } from '../../src/store/store.ts';

export class ScriptedPlane extends EventEmitter<PlaneEvents> implements DataPlane {
  /** Calls and commits, in order: `hold 2`, `commit pair-put:split`, `switch 1 tracking/clear`. */
  readonly calls: string[] = [];
  /** Beginnings of calls that fail, with what they fail with. */
  readonly failing = new Map<string, Error>();
  /** Beginnings of calls that wait for a promise first. */
  readonly waiting = new Map<string, Promise<void>>();
  clientViews: ClientView[] = [];
  dirtyBytes = 0;
  /** Written on the secondary of every pair since its split. */
  secondaryBytes = 0;
  attachDirtyBytes = 0;
  readonly laneCount = 1;
  readonly handover = 'descriptor';

  /** To be given as `openPlane`: it also listens to the store's commits. */
  open = async (options: DataPlaneOptions): Promise<DataPlane> => {
    const store = options.store as Store;
    const commit = store.commit.bind(store);
    store.commit = async (change) => {
      let text = '';
      const named: typeof change = (tables) => {
        const ops = typeof change === 'function' ? change(tables) : change;
        text = ops.map(nameOf).join(' ');
        return ops;
      };
      const planned = `commit ${typeof change === 'function' ? '' : change.map(nameOf).join(' ')}`.trim();
      await this.#pass(planned, false);
      await commit(named);
      this.calls.push(`commit ${text}`);
    };
    return this;
  };

  async #pass(call: string, isNoted = true): Promise<void> {
    for (const [start, promise] of this.waiting) if (call.startsWith(start)) await promise;
    for (const [start, error] of this.failing) {
      if (!call.startsWith(start)) continue;
      this.calls.push(`${call} FAILED`);
      throw error;
    }
    if (isNoted) this.calls.push(call);
  }

  volumeAttach(spec: VolumeSpec): Promise<void> {
    return this.#pass(`attach-volume ${spec.number}`);
  }
  volumeReplace(spec: VolumeSpec): Promise<void> {
    return this.#pass(`replace ${spec.number} ${spec.capacityBytes}`);
  }
  volumeDetach(number: number): Promise<void> {
    return this.#pass(`detach-volume ${number}`);
  }
  volumeHold(number: number): Promise<void> {
    return this.#pass(`hold ${number}`);
  }
  volumeUnhold(number: number): Promise<void> {
    return this.#pass(`unhold ${number}`);
  }
  volumeFlush(number: number): Promise<void> {
    return this.#pass(`flush ${number}`);
  }
  async pairAttach(spec: { readonly id: number }, options: { readonly fresh: boolean }) {
    await this.#pass(`attach ${spec.id} ${options.fresh ? 'fresh' : 'kept'}`);
    return { recoveredBytes: 0, dirtyBytes: this.attachDirtyBytes };
  }
  async pairsSwitch(switches: readonly PairSwitch[]) {
    const isRefused = this.dirtyBytes > 0 && switches.some((change) => change.onlyIfClean === true);
    await this.#pass(`switch ${switches.map(({ id, mode, dirty }) => `${id} ${mode}/${dirty}`).join(' ')}${isRefused ? ' REFUSED' : ''}`);
    return { switched: !isRefused, pauseMs: 0 };
  }
  pairConfigure(id: number, changes: { readonly pace?: number; readonly fenceData?: boolean }): void {
    this.calls.push(`configure ${id} ${changes.pace} ${changes.fenceData}`);
  }
  pairDetach(id: number): Promise<void> {
    return this.#pass(`detach ${id}`);
  }
  pairProgress() {
    const dirtyBytes = { primary: this.dirtyBytes, secondary: this.secondaryBytes, union: this.dirtyBytes };
    return {
      pointer: { region: 0, regions: 16, percent: 0 },
      dirtyBytes,
      copiedBytes: 0,
      rateBytesPerSecond: null,
      etaMs: null,
      secondaryWritten: { firstAtMs: null, lastAtMs: null },
    };
  }
  pairMarkFrom(into: number, from: number): Promise<void> {
    return this.#pass(`mark ${into} from ${from}`);
  }
  copyStart(id: number): void {
    this.calls.push(`copy-start ${id}`);
  }
  copySkippedBytes(): number {
    return 0;
  }
  verifyProgress(): null {
    return null;
  }
  copyStop(id: number): Promise<void> {
    return this.#pass(`copy-stop ${id}`);
  }
  verify(): Promise<never> {
    return Promise.reject(new TwinvolError('NOT_SUPPORTED', 'this plane has no data'));
  }
  faultsSet(volume: number): Promise<void> {
    return this.#pass(`faults ${volume}`);
  }
  faultCounters(): { readonly hits: number; readonly left: number | null } {
    return { hits: 0, left: null };
  }
  listen(options: { readonly unixPath?: string }): Promise<readonly string[]> {
    return Promise.resolve([`nbd+unix:///?socket=${options.unixPath}`]);
  }
  async clients(): Promise<readonly ClientView[]> {
    await this.#pass('clients');
    return this.clientViews;
  }
  async clientsEnd(which: { readonly volume?: number }): Promise<number> {
    await this.#pass(`end-clients ${which.volume}`);
    return 0;
  }
  clientCount(): number {
    return this.clientViews.length;
  }
  resyncBoundBytes(): number {
    return 0;
  }
  async setDurability(): Promise<void> {}
  mediumFailed(): void {}
  fileDamage(): readonly string[] {
    return [];
  }
  async drain(): Promise<void> {}
  async close(): Promise<void> {}
}

const nameOf = (op: TableOp): string => {
  switch (op.op) {
    case 'pair-put':
      return `pair-put:${op.row.state}`;
    case 'volume-put':
      return `volume-put:${op.row.name}:${op.row.capacityBytes}`;
    default:
      return op.op;
  }
};
