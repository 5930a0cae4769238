/**
 * The data plane alone as a process of its own, for tests that attack it or measure it: memory, descriptors and threads
 * of this process are the server's and nobody else's. Started and asked over IPC by nbd-server-process.ts.
 *
 * Volumes lie on two physical volumes in short runs, so that requests cross runs and files.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../src/core/units.ts';
import { openDataPlane } from '../../src/data/plane.ts';
import type { DataPlane, ExportGrant, ExportRefusal, PeerIdentity, VolumeSpec } from '../../src/data/plane-api.ts';

export type ServerVolume = { readonly name: string; readonly capacityBytes: number; readonly readOnly?: boolean };

export type ServerConfig = {
  readonly directory: string;
  readonly volumes: readonly ServerVolume[];
  /** By index of `volumes`. */
  readonly pair?: { readonly primary: number; readonly secondary: number };
  readonly lanes?: number;
  readonly durability?: 'power' | 'process';
  readonly deadlines?: { readonly handshakeMs?: number; readonly requestMs?: number };
  readonly tcp?: boolean;
  readonly tls?: { readonly certPem: string; readonly keyPem: string; readonly caPem?: string; readonly required: boolean };
};

/** A call on the plane, or one of the process's own questions. */
export type ServerCall = { readonly id: number; readonly method: string; readonly args: readonly unknown[] };
export type ServerAnswer =
  | { readonly type: 'ready'; readonly uris: readonly string[] }
  | { readonly type: 'answer'; readonly id: number; readonly value?: unknown; readonly error?: string }
  | { readonly type: 'event'; readonly name: string; readonly detail: unknown };

const REGION_BYTES = MiB;
const PV_COUNT = 2;
/** Regions of one run; odd, so that runs end anywhere. */
const RUN_REGIONS = 3;

/** Nobody may listen any more: then the test is over, and what is said does not matter. */
const say = (message: ServerAnswer): void => {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
};

const specsOf = (volumes: readonly ServerVolume[], next: number[]): VolumeSpec[] =>
  volumes.map(({ name, capacityBytes }, index) => {
    const runs: Array<{ pv: number; start: number; count: number }> = [];
    for (let left = Math.ceil(capacityBytes / REGION_BYTES), at = 0; left > 0; at += 1) {
      const pv = (index + at) % PV_COUNT;
      // Large volumes do not need many runs.
      const count = Math.min(left, left > 4096 ? left : RUN_REGIONS);
      runs.push({ pv, start: next[pv] as number, count });
      next[pv] = (next[pv] as number) + count;
      left -= count;
    }
    return { number: index + 1, name, capacityBytes, runs };
  });

const grantOf = (config: ServerConfig, name: string, peer: PeerIdentity): ExportGrant | ExportRefusal => {
  const index = config.volumes.findIndex((volume, at) => volume.name === name || String(at + 1) === name);
  const volume = config.volumes[index];
  if (volume === undefined) return { refused: 'unknown', message: `there is no volume ${name}` };
  const { pair } = config;
  const side = pair === undefined ? null : pair.primary === index ? 'primary' : pair.secondary === index ? 'secondary' : null;
  return {
    volume: index + 1,
    readOnly: volume.readOnly ?? false,
    description: `test volume ${index + 1}`,
    host: peer.certificateName,
    dirty: side === null ? null : { pair: 1, side },
  };
};

const open = async (config: ServerConfig): Promise<{ plane: DataPlane; uris: readonly string[] }> => {
  const next = Array.from({ length: PV_COUNT }, () => 0);
  const specs = specsOf(config.volumes, next);
  const path = (pv: number): string => join(config.directory, `pv${pv}.img`);
  const fds = next.map((regions, pv) => {
    const fd = fs.openSync(path(pv), 'w+');
    fs.ftruncateSync(fd, regions * REGION_BYTES);
    return fd;
  });
  const plane = await openDataPlane({
    store: { directory: config.directory, regionBytes: REGION_BYTES, pvFd: (pv) => fds[pv] as number, pvPath: path },
    durability: config.durability ?? 'process',
    ...(config.lanes === undefined ? {} : { lanes: config.lanes }),
    ...(config.deadlines === undefined ? {} : { deadlines: config.deadlines }),
    policy: {
      find: (name, peer) => grantOf(config, name, peer),
      list: () => config.volumes.map(({ name }, index) => ({ name, description: `test volume ${index + 1}` })),
    },
  });
  for (const name of ['clientOpened', 'clientClosed', 'workerLost', 'legFailed'] as const) {
    plane.on(name, (detail) => say({ type: 'event', name, detail }));
  }
  for (const spec of specs) await plane.volumeAttach(spec);
  if (config.pair !== undefined) {
    const { primary, secondary } = config.pair;
    await plane.pairAttach(
      { id: 1, primary: primary + 1, secondary: secondary + 1, dirtyRegionBytes: 64 * 1024, fenceData: false, pace: 15 },
      { fresh: true },
    );
  }
  const uris = await plane.listen({
    unixPath: join(config.directory, 'nbd.sock'),
    ...(config.tcp === true ? { tcp: { host: '127.0.0.1', port: 0 } } : {}),
    ...(config.tls === undefined ? {} : { tls: config.tls }),
  });
  return { plane, uris };
};

const serve = async (config: ServerConfig): Promise<void> => {
  const { plane, uris } = await open(config);
  const own: Record<string, () => unknown> = {
    collectGarbage: () => (globalThis as { gc?: () => void }).gc?.(),
    laneCount: () => plane.laneCount,
    handover: () => plane.handover,
  };
  const perform = async ({ id, method, args }: ServerCall): Promise<void> => {
    try {
      const action = own[method] ?? (plane as unknown as Record<string, (...args: readonly unknown[]) => unknown>)[method]?.bind(plane);
      if (action === undefined) throw new Error(`the plane has no ${method}`);
      const value = await action(...args);
      say({ type: 'answer', id, value });
    } catch (error) {
      say({ type: 'answer', id, error: error instanceof Error ? error.message : String(error) });
    }
  };
  process.on('message', (call: ServerCall) => void perform(call));
  process.once('disconnect', () => void plane.close().finally(() => process.exit(0)));
  say({ type: 'ready', uris });
};

process.once('message', (config: ServerConfig) => void serve(config));
