/** A small store in a temporary directory, for tests: regions of 64 KiB, physical volumes of 4 MiB (64 regions). */
import type { RegionRun, TableOp } from '../../src/core/rows.ts';
import { initStore } from '../../src/store/init.ts';
import { type OpenOptions, openStore, type Store } from '../../src/store/store.ts';
import { type TemporaryDirectory, temporaryDirectory } from './temporary.ts';

export const SMALL_REGION_BYTES: number = 65_536;
export const SMALL_PV_BYTES: number = 64 * SMALL_REGION_BYTES;

export type TestStore = AsyncDisposable & {
  readonly temporary: TemporaryDirectory;
  readonly directory: string;
  readonly notices: string[];
  /** Opens it; closed (uncleanly) at the end of the test if it is open then. */
  open(options?: OpenOptions): Promise<Store>;
};

export const testStore = async (): Promise<TestStore> => {
  const temporary = await temporaryDirectory();
  const directory = temporary.path('store');
  const notices: string[] = [];
  const opened: Store[] = [];
  await initStore(directory, { regionBytes: SMALL_REGION_BYTES, pvBytes: SMALL_PV_BYTES });
  return {
    temporary,
    directory,
    notices,
    open: async (options = {}) => {
      const store = await openStore(directory, { notice: (text) => notices.push(text), ...options });
      opened.push(store);
      return store;
    },
    [Symbol.asyncDispose]: async () => {
      for (const store of opened) await store.close({ clean: false });
      await temporary[Symbol.asyncDispose]();
    },
  };
};

/** The operation that makes a volume of these runs. */
export const smallVolumePut = (number: number, runs: readonly RegionRun[]): TableOp => ({
  op: 'volume-put',
  row: {
    number,
    name: `v${number}`,
    capacityBytes: runs.reduce((sum, run) => sum + run.count, 0) * SMALL_REGION_BYTES,
    attribute: 'normal',
    runs,
    isProtected: false,
    uuid: `uuid-${number}`,
    createdAtMs: 1,
  },
});

/** The same of `count` regions that are unassigned right now. */
export const nextVolumePut = (store: Store, number: number, count = 16): TableOp => {
  const runs = store.tables.unassigned.plan(count);
  if (runs === null) throw new Error('the test store has too few regions');
  return smallVolumePut(number, runs);
};
