/**
 * What the main thread holds of volumes and pairs: shared blocks and the files behind them, and the messages that make
 * a worker know them.
 */
import { bitmapWords, countSet, countUnion, mergeInto, setAll, setRange } from '../core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import type { FaultRule } from '../engine/api.ts';
import { BitmapFile, type BitmapLoad } from '../store/bitmap-file.ts';
import { bitmapPath, intentPath } from '../store/layout.ts';
import { pagesOf } from '../wire/bitmap-page.ts';
import { FAULT_COUNTER_WORDS } from './fault-rules.ts';
import { tryLockWord, unlockWord } from './intents.ts';
import type { DirtyChange, PairMode, PairSpec, SecondaryWritten, VolumeSpec } from './plane-api.ts';
import {
  intentExtents,
  MODE,
  PAIR,
  pairBlock,
  type PairBlock,
  pairBlockBytes,
  SLOT_MAIN,
  TIME_UNKNOWN_S,
  VOLUME,
  volumeBlock,
  type VolumeBlock,
  volumeBlockBytes,
  wideCount,
} from './shared-memory.ts';
import { RateWindow } from './rate-window.ts';
import type { FaultSpec, PairMessage, VolumeMessage } from './worker-volumes.ts';

const LOCK_RETRY_MS = 2;

/** What the data plane needs of the store. */
export type PlaneStore = {
  readonly directory: string;
  readonly regionBytes: number;
  pvFd(number: number): number;
  pvPath(number: number): string;
};

export type IntentState = { readonly buffer: SharedArrayBuffer; readonly block: VolumeBlock; readonly file: BitmapFile };

export class VolumeState {
  spec: VolumeSpec;
  /** What was wrong with its intents' file, for the log. */
  damage: readonly string[] = [];
  intents: IntentState | null = null;
  /**
   * False from the reading of marks until the first switch of one of the volume's pairs: until then pairs may still be
   * attached that have to find the marks, so none is dropped.
   */
  mayDropMarks = true;
  faults: readonly FaultSpec[] = [];
  readonly #store: PlaneStore;

  constructor(spec: VolumeSpec, store: PlaneStore) {
    this.spec = spec;
    this.#store = store;
  }

  /** Intents are kept while the volume is in a pair; `fresh`: nothing is marked, otherwise the file is read. */
  openIntents(fresh: boolean): BitmapLoad | null {
    if (this.intents !== null) return null;
    const extents = intentExtents(this.spec.capacityBytes);
    const buffer = new SharedArrayBuffer(volumeBlockBytes(extents));
    const block = volumeBlock(buffer, extents);
    const path = intentPath(this.#store.directory, this.spec.number);
    const header = { bits: extents, bytesPerBit: INTENT_EXTENT_BYTES, owner: this.spec.number };
    if (fresh) {
      this.intents = { buffer, block, file: BitmapFile.create(path, header, block.disk) };
      return null;
    }
    const { file, load } = BitmapFile.open(path, header, block.disk);
    this.damage = damageText({ file, load });
    this.mayDropMarks = false;
    Atomics.store(block.words, VOLUME.MARKED, countSet(block.disk));
    this.intents = { buffer, block, file };
    return load;
  }

  closeIntents(remove: boolean): void {
    if (remove) this.intents?.file.remove();
    else this.intents?.file.close();
    this.intents = null;
  }

  /**
   * A worker died. If it was about to mark extents, memory may say more than the file; the file gets all of it before
   * anybody relies on a mark.
   */
  forgetHolder(slot: number): void {
    if (this.intents === null || Atomics.load(this.intents.block.words, VOLUME.FILE_LOCK) !== slot + 1) return;
    const { block, file } = this.intents;
    try {
      file.writePages(block.disk, 0, pagesOf(block.extents));
      file.sync();
      Atomics.store(block.words, VOLUME.MARKED, countSet(block.disk));
    } catch {
      // Nothing is known to be marked: every write marks anew, and fails as long as the file does.
      block.armed.fill(0);
      block.disk.fill(0);
      Atomics.store(block.words, VOLUME.MARKED, 0);
    }
    unlockWord(block.words, VOLUME.FILE_LOCK);
  }

  setFaults(rules: readonly FaultRule[]): void {
    const known = new Map(this.faults.map((fault) => [fault.rule.id, fault]));
    this.faults = rules.map((rule) => known.get(rule.id) ?? { rule, counters: faultCounters(rule) });
  }

  /** Numbers of its physical volumes. */
  get pvs(): readonly number[] {
    return [...new Set(this.spec.runs.map(({ pv }) => pv))];
  }

  message(): VolumeMessage {
    const { spec, intents } = this;
    const { pvs } = this;
    return {
      type: 'volume',
      name: spec.name,
      leg: {
        number: spec.number,
        capacityBytes: spec.capacityBytes,
        regionBytes: this.#store.regionBytes,
        runs: spec.runs,
        files: pvs.map((pv) => [pv, this.#store.pvFd(pv), this.#store.pvPath(pv)] as const),
      },
      intents:
        intents === null ? null : { buffer: intents.buffer, extents: intents.block.extents, path: intents.file.path, fd: intents.file.fd },
      faults: this.faults,
    };
  }
}

const faultCounters = (rule: FaultRule): SharedArrayBuffer => {
  const counters = new SharedArrayBuffer(FAULT_COUNTER_WORDS * 4);
  new Int32Array(counters)[2] = rule.count ?? -1;
  return counters;
};

const damageText = ({ file, load }: { readonly file: BitmapFile; readonly load: BitmapLoad }): readonly string[] => {
  if (load.missing) return [`${file.path} was missing or is no bitmap of its pair or volume; everything in it counts as dirty`];
  if (load.damagedPages === 0) return [];
  return [`${file.path}: ${load.damagedPages} of ${pagesOf(file.header.bits)} pages are damaged; what they stand for counts as dirty`];
};

export class PairState {
  readonly spec: PairSpec;
  readonly block: PairBlock;
  readonly capacityBytes: number;
  readonly primaryFile: BitmapFile;
  readonly secondaryFile: BitmapFile;
  /** What was wrong with its files, for the log. */
  readonly damage: readonly string[] = [];
  readonly #buffer: SharedArrayBuffer;
  readonly rate = new RateWindow();
  /** Bytes that were dirty when the copy started: what percent is counted against. */
  copyTotalBytes = 0;

  constructor(spec: PairSpec, primary: VolumeState, store: PlaneStore, fresh: boolean) {
    this.spec = spec;
    this.capacityBytes = primary.spec.capacityBytes;
    const regions = Math.ceil(this.capacityBytes / spec.dirtyRegionBytes);
    this.#buffer = new SharedArrayBuffer(pairBlockBytes(regions));
    this.block = pairBlock(this.#buffer, regions);
    this.block.words[PAIR.FENCE] = spec.fenceData ? 1 : 0;
    this.block.words[PAIR.PACE] = spec.pace;
    const header = { bits: regions, bytesPerBit: spec.dirtyRegionBytes, owner: spec.id };
    const primaryPath = bitmapPath(store.directory, spec.id, 'primary');
    const secondaryPath = bitmapPath(store.directory, spec.id, 'secondary');
    if (fresh) {
      // A pair that was just formed differs everywhere, also if the process dies before the first switch.
      setAll(this.block.primary, regions);
      this.primaryFile = BitmapFile.create(primaryPath, header, this.block.primary);
      this.secondaryFile = BitmapFile.create(secondaryPath, header, this.block.secondary);
    } else {
      const primarySide = BitmapFile.open(primaryPath, header, this.block.primary);
      const secondarySide = BitmapFile.open(secondaryPath, header, this.block.secondary);
      this.primaryFile = primarySide.file;
      this.secondaryFile = secondarySide.file;
      this.damage = [...damageText(primarySide), ...damageText(secondarySide)];
    }
  }

  get mode(): PairMode {
    return MODE_NAMES[Atomics.load(this.block.words, PAIR.MODE)] ?? 'idle';
  }

  /** Adds the marked intents of a volume to the bits of its side. @returns regions added */
  addIntents(intents: IntentState | null, side: 'primary' | 'secondary'): number {
    if (intents === null || countSet(intents.block.disk) === 0) return 0;
    const bits = side === 'primary' ? this.block.primary : this.block.secondary;
    const before = countSet(bits);
    const ratio = INTENT_EXTENT_BYTES / this.spec.dirtyRegionBytes;
    for (let extent = 0; extent < intents.block.extents; extent += 1) {
      if ((((intents.block.disk[extent >>> 5] as number) >>> (extent & 31)) & 1) === 0) continue;
      const first = Math.floor(extent * ratio);
      const end = Math.min(this.block.regions, Math.max(first + 1, Math.ceil((extent + 1) * ratio)));
      if (first < end) setRange(bits, first, end);
    }
    return countSet(bits) - before;
  }

  /** Everything may differ. @returns regions added */
  distrustAll(): number {
    const before = countSet(this.block.primary);
    setAll(this.block.primary, this.block.regions);
    return this.block.regions - before;
  }

  /** Applies a switch; called at a closed gate. */
  apply(mode: PairMode, dirty: DirtyChange, isFenced = false): void {
    const { words, primary, secondary, regions } = this.block;
    if (dirty === 'all') setAll(primary, regions);
    if (dirty === 'merge') mergeInto(primary, secondary);
    if (dirty === 'clear') primary.fill(0);
    if (dirty !== 'keep') {
      secondary.fill(0);
      words[PAIR.SECONDARY_FIRST_S] = 0;
      words[PAIR.SECONDARY_LAST_S] = 0;
    }
    if (mode === 'copying' || mode === 'restoring') {
      this.copyTotalBytes = this.dirtyBytes().primary;
      this.rate.clear();
      words[PAIR.POINTER] = 0;
      words[PAIR.COMPARE] = 0;
      words.fill(0, PAIR.COPIED_LOW, PAIR.COPIED_HIGH + 1);
      words.fill(0, PAIR.SKIPPED_LOW, PAIR.HELPER_SKIPPED_HIGH + 1);
    }
    words[PAIR.FENCED] = isFenced ? 1 : 0;
    Atomics.store(words, PAIR.MODE, MODE[mode]);
  }

  /** Waits for the right to write the bitmap files, which a copy and the cleaner want too. */
  async lockFiles(): Promise<void> {
    while (!this.tryLockFiles()) await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }

  tryLockFiles(): boolean {
    return tryLockWord(this.block.words, PAIR.FILE_LOCK, SLOT_MAIN);
  }

  unlockFiles(): void {
    unlockWord(this.block.words, PAIR.FILE_LOCK);
  }

  /** Both bitmaps to their files, durable; the primary's first, so that a merge is never half lost. Needs the right. */
  persist(): void {
    writeDurably(this.primaryFile, this.block.primary);
    writeDurably(this.secondaryFile, this.block.secondary);
  }

  /**
   * The same while a copy may run, after `change` has set bits: what the copy has cleared up to here is durable on the
   * legs before the files say so. Takes the right itself.
   */
  async persistLive(change: () => void, flushLegs: () => Promise<void>): Promise<void> {
    await this.lockFiles();
    try {
      change();
      const bits = [this.block.primary.slice(), this.block.secondary.slice()] as const;
      await flushLegs();
      writeDurably(this.primaryFile, bits[0]);
      writeDurably(this.secondaryFile, bits[1]);
    } finally {
      this.unlockFiles();
    }
  }

  /** The same at the end, when nobody else is there; a file that cannot be written says what it said. */
  persistAtEnd(): void {
    try {
      // Thousands of pairs that are as their files say would make the end long.
      if (!this.primaryFile.holds(this.block.primary)) writeDurably(this.primaryFile, this.block.primary);
      if (!this.secondaryFile.holds(this.block.secondary)) writeDurably(this.secondaryFile, this.block.secondary);
    } catch {
      // The marks stay for it: they are dropped only when the bits could be written.
    }
  }

  /**
   * Before a switch: the primary's file holds what will be dirty after it, so that a file that cannot be written stops
   * the switch and not its aftermath. Bits that are set from here to the closed gate have their marks.
   */
  prepareFiles(dirty: DirtyChange): void {
    if (dirty !== 'all' && dirty !== 'merge') return;
    const bits = this.block.primary.slice();
    if (dirty === 'all') setAll(bits, this.block.regions);
    else mergeInto(bits, this.block.secondary);
    writeDurably(this.primaryFile, bits);
  }

  /** After a switch: the secondary's file is empty. If it cannot be written, a crash copies more than it needs to. */
  settleFiles(dirty: DirtyChange): void {
    if (dirty !== 'all' && dirty !== 'merge') return;
    try {
      writeDurably(this.secondaryFile, this.block.secondary);
    } catch {
      // What the file still names as dirty is copied once more than it needs to be after a crash, and no harm is done.
    }
  }

  dirtyBytes(): { primary: number; secondary: number; union: number } {
    const { primary, secondary } = this.block;
    const bytes = this.spec.dirtyRegionBytes;
    const left = countSet(primary, bitmapWords(this.block.regions));
    const right = countSet(secondary, bitmapWords(this.block.regions));
    const both = right === 0 ? left : left === 0 ? right : countUnion(primary, secondary);
    const cap = (regions: number): number => Math.min(this.capacityBytes, regions * bytes);
    return { primary: cap(left), secondary: cap(right), union: cap(both) };
  }

  /** Takes over what an earlier run knew; what is not known of bytes that are dirty is marked so. */
  recoverSecondaryTimes(known: SecondaryWritten | undefined): void {
    const { words, secondary } = this.block;
    if (countSet(secondary) === 0) return;
    const secondsOf = (atMs: number | null | undefined): number => (typeof atMs === 'number' ? Math.floor(atMs / 1000) : TIME_UNKNOWN_S);
    words[PAIR.SECONDARY_FIRST_S] = secondsOf(known?.firstAtMs);
    words[PAIR.SECONDARY_LAST_S] = secondsOf(known?.lastAtMs);
  }

  secondaryWritten(): SecondaryWritten {
    const { words } = this.block;
    const timeOf = (seconds: number): number | null => (seconds <= TIME_UNKNOWN_S ? null : seconds * 1000);
    return {
      firstAtMs: timeOf(Atomics.load(words, PAIR.SECONDARY_FIRST_S)),
      lastAtMs: timeOf(Atomics.load(words, PAIR.SECONDARY_LAST_S)),
    };
  }

  /** What a copy that compares first found to be equal. */
  skippedBytes(): number {
    const { words } = this.block;
    return wideCount(words, PAIR.SKIPPED_LOW) + wideCount(words, PAIR.HELPER_SKIPPED_LOW);
  }

  copiedBytes(): number {
    const { words } = this.block;
    return wideCount(words, PAIR.COPIED_LOW) + wideCount(words, PAIR.HELPER_COPIED_LOW);
  }

  message(): PairMessage {
    const { id, primary, secondary, dirtyRegionBytes } = this.spec;
    return { type: 'pair', id, primary, secondary, dirtyRegionBytes, buffer: this.#buffer, regions: this.block.regions };
  }

  close(remove: boolean): void {
    for (const file of [this.primaryFile, this.secondaryFile]) {
      if (remove) file.remove();
      else file.close();
    }
  }
}

const writeDurably = (file: BitmapFile, bits: Int32Array): void => {
  file.writePages(bits, 0, pagesOf(file.header.bits));
  file.sync();
};

const MODE_NAMES: readonly PairMode[] = ['idle', 'copying', 'restoring', 'mirroring', 'tracking'];
