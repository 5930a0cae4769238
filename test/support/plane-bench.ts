/**
 * A whole data plane (Piscina workers, lanes, NBD on a unix socket) over volumes on plain files, with the few decisions of
 * an engine that a test wants made: an export for each volume, and a pair that mirrors when its copy is done.
 */
import fs from 'node:fs';
import { connect, type ConnectOptions, type NbdClient } from '../../src/nbd-client/index.ts';
import type { FaultRule } from '../../src/engine/api.ts';
import { MiB } from '../../src/core/units.ts';
import type { DataPlane, DirtyChange, PairMode, PairSpec, PlaneEvents, VolumeSpec } from '../../src/data/plane-api.ts';
import { openDataPlane } from '../../src/data/plane.ts';
import { type LegStore, legStore, pairSpec } from './plane-legs.ts';
import { type TemporaryDirectory, temporaryDirectory } from './temporary.ts';

export type BenchOptions = {
  readonly lanes?: number;
  readonly volumes?: number;
  readonly regions?: number;
  readonly regionBytes?: number;
  readonly durability?: 'power' | 'process';
  /** A directory of an earlier bench, to start on again. */
  readonly directory?: string;
};

type Happened = { readonly event: keyof PlaneEvents; readonly facts: Readonly<Record<string, unknown>> };

export class PlaneBench {
  readonly plane: DataPlane;
  readonly store: LegStore;
  readonly specs: readonly VolumeSpec[];
  readonly happened: Happened[] = [];
  readonly socketPath: string;
  readonly #temporary: TemporaryDirectory | null;
  /** Pairs that mirror as soon as their copy is done. */
  readonly #auto = new Set<number>();

  private constructor(
    plane: DataPlane,
    store: LegStore,
    specs: readonly VolumeSpec[],
    socket: string,
    temporary: TemporaryDirectory | null,
  ) {
    this.plane = plane;
    this.store = store;
    this.specs = specs;
    this.socketPath = socket;
    this.#temporary = temporary;
    for (const event of ['copyDone', 'copyFailed', 'legFailed', 'clientClosed', 'workerLost'] as const) {
      plane.on(event, (facts) => {
        this.happened.push({ event, facts });
        if (event === 'copyDone') void this.#copied((facts as { pair: number }).pair);
      });
    }
  }

  static async open(options: BenchOptions = {}): Promise<PlaneBench> {
    const temporary = options.directory === undefined ? await temporaryDirectory() : null;
    const directory = options.directory ?? (temporary as TemporaryDirectory).root;
    const store = legStore(directory, options.regionBytes ?? MiB);
    const specs = Array.from({ length: options.volumes ?? 2 }, (_, index) => store.volume(index + 1, options.regions ?? 8));
    const plane = await openDataPlane({
      store,
      lanes: options.lanes ?? 2,
      durability: options.durability ?? 'process',
      policy: {
        find: (name) => {
          const spec = specs.find((volume) => volume.name === name);
          if (spec === undefined) return { refused: 'unknown', message: `no ${name}` };
          return { volume: spec.number, readOnly: false, description: '', host: null, dirty: null };
        },
        list: () => specs.map(({ name }) => ({ name, description: '' })),
      },
    });
    for (const spec of specs) await plane.volumeAttach(spec);
    const socket = `${directory}/nbd.sock`;
    await plane.listen({ unixPath: socket });
    return new PlaneBench(plane, store, specs, socket, temporary);
  }

  connect(volume: number, options: ConnectOptions = {}): Promise<NbdClient> {
    return connect({ socket: this.socketPath, exportName: `volume-${volume}`, ...options });
  }

  async switch(id: number, mode: PairMode, dirty: DirtyChange, onlyIfClean = false): Promise<boolean> {
    return (await this.plane.pairsSwitch([{ id, mode, dirty, onlyIfClean }])).switched;
  }

  /** Forms a pair and starts its copy. */
  async pair(changes: Partial<PairSpec> = {}): Promise<PairSpec> {
    const spec = pairSpec(changes);
    await this.plane.pairAttach(spec, { fresh: true });
    await this.switch(spec.id, 'copying', 'all');
    this.copy(spec.id);
    return spec;
  }

  copy(id: number): void {
    this.#auto.add(id);
    this.plane.copyStart(id);
  }

  /** Forms a pair and waits until it mirrors. */
  async duplex(changes: Partial<PairSpec> = {}): Promise<PairSpec> {
    const spec = await this.pair(changes);
    await this.mirroring(spec.id);
    return spec;
  }

  mirroring(id: number): Promise<void> {
    return until(`pair ${id} mirrors`, () => !this.#auto.has(id));
  }

  async #copied(id: number): Promise<void> {
    if (!this.#auto.has(id)) return;
    if (await this.switch(id, 'mirroring', 'keep', true)) this.#auto.delete(id);
    else this.plane.copyStart(id);
  }

  events(event: keyof PlaneEvents): ReadonlyArray<Readonly<Record<string, unknown>>> {
    return this.happened.filter((one) => one.event === event).map(({ facts }) => facts);
  }

  until(event: keyof PlaneEvents, count = 1): Promise<void> {
    return until(`${count} x ${event}`, () => this.events(event).length >= count);
  }

  /** What the files of a volume hold, read past the plane. */
  content(volume: number): Buffer {
    const spec = this.specs[volume - 1] as VolumeSpec;
    const whole = Buffer.alloc(spec.capacityBytes);
    let at = 0;
    for (const { pv, start, count } of spec.runs) {
      const bytes = Math.min(count * this.store.regionBytes, spec.capacityBytes - at);
      readAt(this.store.pvFd(pv), whole.subarray(at, at + bytes), start * this.store.regionBytes);
      at += bytes;
    }
    return whole;
  }

  /** Ends the plane; the files stay when the directory is somebody else's. */
  async close(): Promise<void> {
    await this.plane.close();
    this.store.close();
    await this.#temporary?.[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const readAt = (fd: number, into: Buffer, position: number): void => {
  let done = 0;
  while (done < into.length) {
    const got = fs.readSync(fd, into, done, into.length - done, position + done);
    if (got === 0) return;
    done += got;
  }
};

export const until = async (what: string, condition: () => boolean, timeoutMs = 15_000): Promise<void> => {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
};

export const faultRule = (changes: Partial<FaultRule> = {}): FaultRule => ({
  id: 1,
  volume: 2,
  error: 'write',
  errno: 'EIO',
  offset: 0,
  length: Number.MAX_SAFE_INTEGER,
  rate: 1,
  latencyMs: 0,
  count: null,
  seed: 1,
  hits: 0,
  expired: false,
  ...changes,
});
