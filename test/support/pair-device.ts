/**
 * A small device for scenarios: a temporary store with small physical volumes, a primary and its pool, and ways to fill
 * and compare volumes over NBD as a host does.
 */
import { createHash } from 'node:crypto';
import { openDevice } from '../../src/index.ts';
import type { Device, DeviceOptions, Pair, Volume } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';

export const VOLUME_BYTES: number = 16 * MiB;

/** Bytes that tell where they were written and in which round, so that a block in the wrong place is seen. */
export const blockOf = (offset: number, length: number, round: number): Buffer => {
  const seed = createHash('sha256').update(`${offset}:${round}`).digest();
  const block = Buffer.alloc(length);
  for (let at = 0; at < length; at += seed.length) seed.copy(block, at);
  return block;
};

export const writeTo = async (volume: Volume, offset: number, length: number, round: number): Promise<void> => {
  await using client = await volume.connect();
  await client.write(offset, blockOf(offset, length, round));
  await client.flush();
};

export const readFrom = async (volume: Volume, offset: number, length: number): Promise<Buffer> => {
  await using client = await volume.connect();
  return client.read(offset, length);
};

/** A checksum of the first `bytes` of a volume, as a host reads it. */
export const checksum = async (volume: Volume, bytes: number = VOLUME_BYTES): Promise<string> => {
  await using client = await volume.connect();
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; at += MiB) hash.update(await client.read(at, Math.min(MiB, bytes - at)));
  return hash.digest('hex');
};

export type PairDevice = AsyncDisposable & { readonly device: Device; readonly primary: Volume; readonly secondary: Volume };

/** A device with the volumes `db` and `copy`, the latter in the pool. */
export const openPairDevice = async (options: DeviceOptions = {}): Promise<PairDevice> => {
  const device = await openDevice({ pvSize: '1G', lanes: 2, ...options });
  const primary = await device.createVolume('db', VOLUME_BYTES);
  const secondary = await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
  return { device, primary, secondary, [Symbol.asyncDispose]: () => device.close() };
};

/** The pair, in duplex. */
export const duplexPair = async ({ primary, secondary }: PairDevice): Promise<Pair> => (await primary.pair(secondary)).wait('duplex');

/** The error that a call fails with; fails the test when there is none. */
export const failure = async (
  work: Promise<unknown>,
): Promise<{ readonly code: string; readonly message: string; readonly details: Readonly<Record<string, unknown>> }> => {
  try {
    await work;
  } catch (error) {
    return error as Awaited<ReturnType<typeof failure>>;
  }
  throw new Error('it was expected to fail');
};

export const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Number of the newest event, to read on from there. */
export const lastSeq = async (device: Pick<Device, 'events'>): Promise<number> => {
  let seq = 0;
  for await (const event of device.events({ follow: false })) seq = Math.max(seq, event.seq);
  return seq;
};
