/**
 * Lives through a full file system with a real store, and prints what happened as one line of JSON. Run in a mount
 * namespace of its own by test/fault/journal-full-disk.test.ts; argument: an empty directory on a small tmpfs.
 */
import { readdirSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { TwinvolError } from '../../src/core/faults.ts';
import { volumeDeleteOps } from '../../src/core/table-changes.ts';
import { checkStore } from '../../src/store/check.ts';
import { initStore } from '../../src/store/init.ts';
import { scrubRuns } from '../../src/store/scrubber.ts';
import { openStore } from '../../src/store/store.ts';
import { nextVolumePut, SMALL_PV_BYTES, SMALL_REGION_BYTES } from './open-stores.ts';

const root = process.argv[2] as string;
const directory = join(root, 'store');
const filler = join(root, 'filler');
const freeBytes = (): number => statfsSync(root).bavail * statfsSync(root).bsize;

/** Fills the file system to the last block. */
const fill = (): void => {
  try {
    writeFileSync(filler, Buffer.alloc(freeBytes() + 65_536, 1));
  } catch {
    // ENOSPC is the purpose.
  }
};

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: unknown) => (error as TwinvolError).code,
  );

await initStore(directory, { regionBytes: SMALL_REGION_BYTES, pvBytes: SMALL_PV_BYTES });
let store = await openStore(directory);
await store.addPvs(1);
await store.commit(() => [nextVolumePut(store, 1)]);
await store.commit(() => [nextVolumePut(store, 2)]);
writeSync(store.pvFd(1), Buffer.alloc(4 * SMALL_REGION_BYTES, 7), 0, undefined, 0);

fill();
const freeWhenFull = freeBytes();
const small = await codeOf(store.commit((tables) => [{ op: 'volume-put', row: { ...tables.volume(2), name: 'renamed' } }]));

// More than the journal's reserve holds: refused, and later changes are not harmed.
const before = JSON.stringify(store.tables.snapshot());
const grants = Object.fromEntries([[2, 'rw' as const]]);
const many = Array.from({ length: 2000 }, (_, index) => ({
  op: 'host-put' as const,
  row: { name: `host${index}`, tokenSha256: 'a'.repeat(64), grants, createdAtMs: 1 },
}));
const large = await codeOf(store.commit(many));
const isUnchanged = JSON.stringify(store.tables.snapshot()) === before;
const pv = await codeOf(store.addPvs(1));

// Deleting a volume is what gives space back, so it must work now.
const deleted = await codeOf(store.commit((tables) => volumeDeleteOps(tables, tables.volume(1))));
const [list] = store.tables.scrubs();
const scrubbed = await codeOf(scrubRuns(store, list?.runs ?? [], { punch: async () => false }));
const freed = await codeOf(store.commit([{ op: 'scrub-delete', id: list?.id ?? 0 }]));

rmSync(filler);
const later = await codeOf(store.commit(many));
const hosts = store.tables.hosts().length;
const failure = store.failure?.message ?? null;
await store.close({ clean: true });
const { ok, findings } = await checkStore(directory);
store = await openStore(directory);
const reopened = { hosts: store.tables.hosts().length, volumes: store.tables.volumes().map(({ name }) => name) };
await store.close({ clean: true });
const leftovers = readdirSync(directory).filter((name) => name.endsWith('.new'));

process.stdout.write(
  `${JSON.stringify({ freeWhenFull, small, large, isUnchanged, pv, deleted, scrubbed, freed, later, hosts, failure, ok, findings, reopened, leftovers })}\n`,
);
