/** The entry of the threads of `plane-thread.ts`. */
import { record, Recorder } from './plane-trace.ts';
import fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { LOCK_GRANULE_BYTES } from '../../src/core/units.ts';
import { CopyHelper } from '../../src/data/copy-helper.ts';
import { CopyTask } from '../../src/data/copy-task.ts';
import { FlushGroup } from '../../src/data/flush-group.ts';
import { type RangeExclusion, RangeLocks } from '../../src/data/range-locks.ts';
import { PAIR } from '../../src/data/shared-memory.ts';
import { WorkerVolumes } from '../../src/data/worker-volumes.ts';
import { WriteGate } from '../../src/data/write-gate.ts';
import { type WorkerPair, type WorkerVolume, WritePath } from '../../src/data/write-path.ts';
import { BitmapFile } from '../../src/store/bitmap-file.ts';
import { decodePage, PAGE_BYTES, PAGE_WORDS, pageOfBit, pageOffset } from '../../src/wire/bitmap-page.ts';
import { CONTROL, type LockKind, type MarkJob, randomFrom, type ThreadJob, type WriteJob } from './plane-thread.ts';

const NO_LOCKS: RangeExclusion = { acquire: () => {}, release: () => {} };
const BURST_REST_MS = 40;
const pause = new Int32Array(new SharedArrayBuffer(4));
const rest = (ms: number): unknown => (ms > 0 ? Atomics.wait(pause, 0, 0, ms) : undefined);
const say = (message: { readonly said: unknown } | { readonly done: unknown; readonly events: unknown }): void =>
  parentPort?.postMessage(message);

type Job<K extends ThreadJob['kind']> = Extract<ThreadJob, { kind: K }>;

const pathOf = (job: { readonly device: SharedArrayBuffer; readonly slot: number }, locks: LockKind): WritePath => {
  const device = new Int32Array(job.device);
  const report = (failure: unknown): void => say({ said: failure });
  return locks === 'real' ? new WritePath(device, job.slot, report) : new WritePath(device, job.slot, report, NO_LOCKS);
};

const pictureOf = (job: Job<'write'> | Job<'copy'> | Job<'help'>): WorkerVolumes<WorkerVolume> => {
  const picture = new WorkerVolumes<WorkerVolume>(job.slot, (base) => base);
  picture.survivesPowerLoss = job.survivesPowerLoss;
  for (const message of [...job.volumes, ...job.pairs]) picture.apply(message);
  return picture;
};

const placeOf = (
  job: WriteJob,
  pair: WorkerPair | undefined,
  random: () => number,
  capacityBytes: number,
): { offset: number; length: number } => {
  const length = 512 * (1 + Math.floor((random() * job.lengthMax) / 512));
  let center = random() * capacityBytes;
  if (job.where === 'hot') center = Math.floor(random() * 4) * 2 ** 20 + 2 ** 19 + random() * 8192;
  if (job.where === 'pointer' && pair !== undefined) {
    center = Atomics.load(pair.block.words, PAIR.POINTER) * pair.dirtyRegionBytes + random() * 3 * LOCK_GRANULE_BYTES;
  }
  const offset = Math.floor(Math.min(Math.max(0, center), capacityBytes - length) / 512) * 512;
  return { offset, length };
};

/** Writes until it is told to stop. Every sector says who wrote it and in which round. */
const write = async (job: WriteJob): Promise<{ readonly rounds: number; readonly codes: readonly string[] }> => {
  const control = new Int32Array(job.control);
  const path = pathOf(job, job.locks);
  const picture = pictureOf(job);
  const volume = picture.volumes.get(job.volume) as WorkerVolume;
  const random = randomFrom(job.seed);
  const buffer = Buffer.alloc(job.lengthMax + 512);
  const codes = new Set<string>();
  const flushes = new FlushGroup(new Int32Array(job.device), (failure) => say({ said: failure }));
  flushes.survivesPowerLoss = job.survivesPowerLoss;
  Atomics.store(control, CONTROL.READY, 1);
  Atomics.notify(control, CONTROL.READY);
  let rounds = 0;
  while (Atomics.load(control, CONTROL.STOP) === 0) {
    rounds += 1;
    const { offset, length } = placeOf(job, [...picture.pairs.values()][0], random, volume.leg.capacityBytes);
    const stamp = Buffer.alloc(4);
    stamp.writeUInt32LE(((job.slot << 24) | (rounds & 0xffffff)) >>> 0);
    buffer.fill(stamp, 0, length);
    const isZero = job.zerosEvery > 0 && rounds % job.zerosEvery === 0;
    const code = isZero ? path.clear(volume, offset, length, random() < 0.5) : path.write(volume, buffer, 0, offset, length);
    if (code !== '') {
      codes.add(code);
      Atomics.add(control, CONTROL.FAILURES, 1);
    }
    Atomics.store(control, CONTROL.ROUNDS, rounds);
    if (job.flushEvery > 0 && rounds % job.flushEvery === 0) await flush(flushes, volume);
    rest(job.burst > 0 && rounds % job.burst === 0 ? BURST_REST_MS : job.restMs);
  }
  return { rounds, codes: [...codes] };
};

/** A flush that was answered well is noted, with the moment at which it was asked for. */
const flush = (flushes: FlushGroup, volume: WorkerVolume): Promise<void> =>
  new Promise((resolve) => {
    const askedAt = recorder?.now() ?? 0;
    flushes.flush(volume, (code) => {
      if (code === '') recorder?.note(`flushed ${volume.leg.number}`, askedAt);
      resolve();
    });
  });

const copy = async (job: Job<'copy'>): Promise<void> => {
  const control = new Int32Array(job.control);
  const pair = pictureOf(job).pairs.get((job.pairs[0] as { id: number }).id) as WorkerPair;
  const file = BitmapFile.adopt(job.file.path, job.file.fd, {
    bits: pair.block.regions,
    bytesPerBit: pair.dirtyRegionBytes,
    owner: pair.id,
  });
  const place = {
    device: new Int32Array(job.device),
    slot: job.slot,
    path: pathOf(job, job.locks),
    survivesPowerLoss: () => job.survivesPowerLoss,
  };
  await eachGo(control, async () => say({ said: await new CopyTask(pair, file, place).run(() => {}) }));
};

const help = async (job: Job<'help'>): Promise<void> => {
  const pair = pictureOf(job).pairs.get((job.pairs[0] as { id: number }).id) as WorkerPair;
  const place = { device: new Int32Array(job.device), path: pathOf(job, job.locks) };
  await eachGo(new Int32Array(job.control), async () => say({ said: await new CopyHelper(pair, place).run(() => {}) }));
};

const eachGo = async (control: Int32Array, run: () => Promise<void>): Promise<void> => {
  Atomics.store(control, CONTROL.READY, 1);
  for (let round = 0; Atomics.load(control, CONTROL.STOP) === 0; ) {
    if (Atomics.load(control, CONTROL.GO) === round) {
      Atomics.wait(control, CONTROL.GO, round, 20);
      continue;
    }
    await run();
    round += 1;
    Atomics.store(control, CONTROL.ROUNDS, round);
  }
};

const contend = (job: Job<'contend'>): { readonly intruders: number } => {
  const owners = new Int32Array(job.owners);
  const locks = job.locks === 'real' ? new RangeLocks(new Int32Array(job.device), job.slot) : NO_LOCKS;
  const random = randomFrom(job.seed);
  let intruders = 0;
  for (let round = 0; round < job.rounds; round += 1) {
    const count = 1 + Math.floor(random() * job.granulesMax);
    const first = Math.floor(random() * (owners.length - count + 1));
    const offset = first * LOCK_GRANULE_BYTES + Math.floor(random() * 1000);
    locks.acquire(1, offset, count * LOCK_GRANULE_BYTES - 1000);
    for (let granule = first; granule < first + count; granule += 1) if (Atomics.exchange(owners, granule, job.slot) !== 0) intruders += 1;
    if (round % 64 === 0) rest(0.2);
    for (let granule = first; granule < first + count; granule += 1) if (Atomics.exchange(owners, granule, 0) !== job.slot) intruders += 1;
    locks.release();
  }
  return { intruders };
};

const hold = (job: Job<'hold'>): never => {
  const device = new Int32Array(job.device);
  const gate = new WriteGate(device, job.slot);
  const forever = (): never => {
    say({ said: 'holding' });
    for (;;) Atomics.wait(pause, 0, 0);
  };
  if (job.closesGate) gate.closed(forever);
  if (job.inGate) gate.enter();
  if (job.granules > 0) new RangeLocks(device, job.slot).acquire(1, 0, job.granules * LOCK_GRANULE_BYTES);
  return forever();
};

/** `alone` word 0: somebody has the gate closed; word 1: how many are inside. */
const pass = (job: Job<'pass'>): { readonly rounds: number; readonly intruded: number } => {
  const control = new Int32Array(job.control);
  const alone = new Int32Array(job.alone);
  const gate = new WriteGate(new Int32Array(job.device), job.slot);
  let rounds = 0;
  let intruded = 0;
  Atomics.store(control, CONTROL.READY, 1);
  while (Atomics.load(control, CONTROL.STOP) === 0) {
    gate.enter();
    Atomics.add(alone, 1, 1);
    if (Atomics.load(alone, 0) !== 0) intruded += 1;
    if (rounds % 50 === 0) rest(0.1);
    if (Atomics.load(alone, 0) !== 0) intruded += 1;
    Atomics.sub(alone, 1, 1);
    gate.leave();
    rounds += 1;
  }
  return { rounds, intruded };
};

const close = (job: Job<'close'>): { readonly notAlone: number } => {
  const alone = new Int32Array(job.alone);
  const gate = new WriteGate(new Int32Array(job.device), job.slot);
  let notAlone = 0;
  for (let round = 0; round < job.rounds; round += 1) {
    gate.closed(() => {
      if (Atomics.exchange(alone, 0, 1) !== 0 || Atomics.load(alone, 1) !== 0) notAlone += 1;
      if (round % 20 === 0) rest(0.2);
      if (Atomics.load(alone, 1) !== 0) notAlone += 1;
      Atomics.store(alone, 0, 0);
    });
  }
  return { notAlone };
};

const mark = (job: MarkJob): { readonly unmarked: number; readonly failed: number } => {
  const picture = new WorkerVolumes<WorkerVolume>(job.slot, (base) => base);
  picture.apply(job.volume);
  const intents = [...picture.volumes.values()][0]?.intents;
  if (intents === null || intents === undefined) throw new Error('the volume has no intents');
  const fd = fs.openSync((job.volume.intents as { path: string }).path, 'r');
  const random = randomFrom(job.seed);
  const page = Buffer.alloc(PAGE_BYTES);
  let unmarked = 0;
  let failed = 0;
  for (let round = 0; round < job.rounds; round += 1) {
    const extent = Math.floor(random() * intents.block.extents);
    if (!intents.mark(extent * 4 * 2 ** 20 + 512, 4096)) failed += 1;
    const words = new Int32Array((pageOfBit(extent) + 1) * PAGE_WORDS);
    fs.readSync(fd, page, 0, PAGE_BYTES, pageOffset(pageOfBit(extent)));
    const isGood = decodePage(page, 0, pageOfBit(extent), words);
    if (!isGood || (((words[extent >>> 5] as number) >>> (extent & 31)) & 1) === 0) unmarked += 1;
  }
  fs.closeSync(fd);
  return { unmarked, failed };
};

const run = (job: ThreadJob): unknown => {
  switch (job.kind) {
    case 'write':
      return write(job);
    case 'copy':
      return copy(job);
    case 'help':
      return help(job);
    case 'contend':
      return contend(job);
    case 'hold':
      return hold(job);
    case 'pass':
      return pass(job);
    case 'close':
      return close(job);
    case 'mark':
      return mark(job);
  }
};

const { trace } = workerData as ThreadJob;
const recorder = trace === undefined ? null : new Recorder(trace);
record(recorder);
const answer = await run(workerData as ThreadJob);
say({ done: answer, events: recorder?.events ?? [] });
