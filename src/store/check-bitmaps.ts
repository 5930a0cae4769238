/**
 * The part of `store check` that looks into dirty-region bitmaps and intents: every page of every file that a start
 * would read.
 *
 * None of it is a `damage`: whatever cannot be trusted counts as dirty at the next start (bitmap-file.ts), which costs
 * copying and loses nothing. It says how much, so that nobody is surprised by the resync.
 */
import { join } from 'node:path';
import { INTENT_EXTENT_BYTES, formatSize } from '../core/units.ts';
import { systemCode } from '../core/faults.ts';
import type { Tables } from '../core/tables.ts';
import type { MetadataFiles } from '../platform/metadata-files.ts';
import { type BitmapHeader, decodeHeader, decodePage, PAGE_BITS, PAGE_WORDS, pageOffset, pagesOf } from '../wire/bitmap-page.ts';
import { type CheckFinding, finding } from './check-finding.ts';
import { BITMAP_DIRECTORY, bitmapPath, INTENT_DIRECTORY, intentPath, pairOfBitmapName, volumeOfIntentName } from './layout.ts';

/** Numbers of damaged pages that are named; more of them are counted. */
const PAGES_NAMED = 8;

/** A file that has to be there, with the header that it has to have. */
type Expected = { readonly file: string; readonly header: BitmapHeader; readonly capacityBytes: number };

export const bitmapFindings = async (files: MetadataFiles, tables: Tables, directory: string): Promise<CheckFinding[]> => {
  const findings: CheckFinding[] = [];
  for (const expected of expectedFiles(tables, directory)) {
    const found = await oneFile(files, expected);
    if (found !== null) findings.push(found);
  }
  return [...findings, ...(await leftFiles(files, tables, directory))];
};

const expectedFiles = (tables: Tables, directory: string): readonly Expected[] => {
  const bitmaps = tables.pairs().flatMap(({ id, primary, dirtyRegionBytes }) => {
    const { capacityBytes } = tables.volume(primary);
    const header = { bits: Math.ceil(capacityBytes / dirtyRegionBytes), bytesPerBit: dirtyRegionBytes, owner: id };
    return (['primary', 'secondary'] as const).map((side) => ({ file: bitmapPath(directory, id, side), header, capacityBytes }));
  });
  const intents = tables.volumes().flatMap(({ number, capacityBytes }) => {
    if (!tables.isPaired(number)) return [];
    const header = { bits: Math.ceil(capacityBytes / INTENT_EXTENT_BYTES), bytesPerBit: INTENT_EXTENT_BYTES, owner: number };
    return [{ file: intentPath(directory, number), header, capacityBytes }];
  });
  return [...bitmaps, ...intents];
};

/** What the next start makes of the file, if it cannot trust all of it. */
const oneFile = async (files: MetadataFiles, { file, header, capacityBytes }: Expected): Promise<CheckFinding | null> => {
  const all = `its ${formatSize(capacityBytes)} count as dirty at the next start`;
  let bytes: Buffer | null;
  try {
    bytes = await files.readFile(file);
  } catch (error) {
    return finding('repair', { file }, `cannot be read (${systemCode(error)}): ${all}`);
  }
  if (bytes === null) return finding('repair', { file }, `is missing: ${all}`);
  const found = decodeHeader(bytes);
  if (found === null) return finding('repair', { file, offset: 0 }, `has a damaged header: ${all}`);
  if (found.bits !== header.bits || found.bytesPerBit !== header.bytesPerBit || found.owner !== header.owner)
    return finding('repair', { file, offset: 0 }, `belongs to another pair or volume: ${all}`);
  const pages = damagedPages(bytes, header.bits);
  const [first] = pages;
  if (first === undefined) return null;
  const names = pages.slice(0, PAGES_NAMED).map((page) => page + 1);
  const rest = pages.length > PAGES_NAMED ? ` and ${pages.length - PAGES_NAMED} more` : '';
  const which = `page${pages.length === 1 ? '' : 's'} ${names.join(', ')}${rest} of ${pagesOf(header.bits)}`;
  const dirtyBytes = pages.reduce((sum, page) => sum + bytesOfPage(page, header, capacityBytes), 0);
  const text = `${which} damaged: what that stands for, ${formatSize(dirtyBytes)}, counts as dirty at the next start`;
  return finding('repair', { file, offset: pageOffset(first) }, text);
};

/** Their numbers, counted from 0. */
const damagedPages = (bytes: Buffer, bits: number): readonly number[] => {
  const words = new Int32Array(pagesOf(bits) * PAGE_WORDS);
  return Array.from({ length: pagesOf(bits) }, (_, page) => page).filter((page) => !decodePage(bytes, pageOffset(page), page, words));
};

const bytesOfPage = (page: number, { bytesPerBit }: BitmapHeader, capacityBytes: number): number =>
  Math.min(capacityBytes, (page + 1) * PAGE_BITS * bytesPerBit) - page * PAGE_BITS * bytesPerBit;

/** Files of pairs and volumes that are in the tables no more. */
const leftFiles = async (files: MetadataFiles, tables: Tables, directory: string): Promise<CheckFinding[]> => {
  const isLeftBitmap = (name: string): boolean => {
    const id = pairOfBitmapName(name);
    return id === null || tables.pair(id) === undefined;
  };
  const isLeftIntent = (name: string): boolean => {
    const number = volumeOfIntentName(name);
    return number === null || !tables.isPaired(number);
  };
  const findings: CheckFinding[] = [];
  for (const [folder, isLeft, isOurs] of [
    [BITMAP_DIRECTORY, isLeftBitmap, pairOfBitmapName],
    [INTENT_DIRECTORY, isLeftIntent, volumeOfIntentName],
  ] as const) {
    for (const name of (await files.list(join(directory, folder))).filter(isLeft).sort()) {
      const file = join(directory, folder, name);
      if (isOurs(name) === null) findings.push(finding('note', { file }, 'is no file of this store'));
      else findings.push(finding('repair', { file }, 'belongs to no pair any more; the next start removes it'));
    }
  }
  return findings;
};
