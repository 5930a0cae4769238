/**
 * What `twinvol bench` is about to load: the export, what the engine of `--store` knows about it where it is one of
 * its volumes, and the operator's word before a workload writes over it.
 */
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { leave, limitsOf, openExport } from '../../bench/export-connection.ts';
import { type ExportLimits, placeWorkload, type Workload, writes } from '../../bench/workload.ts';
import { TwinvolError } from '../../core/faults.ts';
import { printable } from '../../core/inquiry-text.ts';
import { formatSize } from '../../core/units.ts';
import type { ClientView, PairView, VolumeView } from '../../core/views.ts';
import type { NbdClient } from '../../nbd-client/nbd-client.ts';
import { type NbdUri, parseNbdUri } from '../../wire/nbd-uri.ts';
import { volumeArgument } from '../arguments.ts';
import type { CommandContext } from '../command-context.ts';
import { confirmDestruction } from '../consent-prompt.ts';
import { pairName } from '../copy-progress.ts';

export type BenchRange = { readonly offset: number; readonly length?: number };
export type BenchTarget = {
  readonly uri: string;
  /** For the block status and the first run. */
  readonly client: NbdClient;
  readonly limits: ExportLimits;
  readonly where: { readonly offset: number; readonly length: number };
  /** What the engine of `--store` knows about it, a line each; nothing where the workload only reads. */
  readonly facts: readonly string[];
};

const LOCAL_HOSTS = new Set(['localhost', '127.0.0.1', '::1', '0.0.0.0', '::']);

/** Where the path leads to, also through symbolic links: the socket's own, or its directory's. */
const realPath = (path: string): string => {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
};

const isSamePlace = (one: NbdUri['where'], other: NbdUri['where']): boolean => {
  if (one.kind === 'unix') return other.kind === 'unix' && realPath(one.path) === realPath(other.path);
  if (other.kind === 'unix') return false;
  return one.port === other.port && (one.host === other.host || (LOCAL_HOSTS.has(one.host) && LOCAL_HOSTS.has(other.host)));
};

/** The volume of the device that the URI names, or null. */
const volumeOf = async (context: CommandContext, uri: string): Promise<VolumeView | null> => {
  const { where, exportName } = parseNbdUri(uri);
  const status = await context.call('device.status', {});
  if (!status.sockets.nbd.some((base) => isSamePlace(parseNbdUri(base).where, where))) return null;
  const volumes = await context.call('volume.list', {});
  return volumes.find(({ name, number }) => name === exportName || String(number) === exportName) ?? null;
};

const pairFact = (volume: VolumeView, pair: PairView): string => {
  const isPrimary = pair.primary.number === volume.number;
  const also = isPrimary && pair.state !== 'split' && pair.state !== 'suspended' ? ': what is written goes to its secondary too' : '';
  return `${volume.name} is the ${isPrimary ? 'primary' : 'secondary'} of the pair ${pairName(pair)}, which is ${pair.state}${also}`;
};

const clientFact = (volume: VolumeView, { id, peer, readOnly, host }: ClientView): string => {
  const whose = host === null ? '' : ` of host ${printable(host)}`;
  return `NBD connection ${id}${whose} (${printable(peer)}) has ${volume.name} open for ${readOnly ? 'reading' : 'reading and writing'}`;
};

/** What the engine knows about the export, a line each; nothing where no store is named, nobody answers, or it is not one of its own. */
const engineFacts = async (context: CommandContext, uri: string): Promise<readonly string[]> => {
  try {
    const volume = await volumeOf(context, uri);
    if (volume === null) return [];
    const [pairs, clients] = [await context.call('pair.status', {}), await context.call('client.list', {})];
    return [
      ...pairs.filter((pair) => [pair.primary.number, pair.secondary.number].includes(volume.number)).map((pair) => pairFact(volume, pair)),
      ...clients.filter((client) => client.volume?.number === volume.number).map((client) => clientFact(volume, client)),
    ];
  } catch (error) {
    if (error instanceof TwinvolError && ['USAGE', 'ENGINE_UNREACHABLE', 'ACCESS_DENIED'].includes(error.code)) return [];
    throw error;
  }
};

/** An NBD URI, or the name or number of a volume of the store. */
const uriOf = async (context: CommandContext, named: string): Promise<string> => {
  if (named === '') {
    const remedy = "give an NBD URI, or a volume's name or number";
    throw new TwinvolError('USAGE', 'no export is named', { remedy });
  }
  if (named.includes(':')) return named;
  return context.call('volume.uri', { volume: volumeArgument(named) });
};

const targetOf = async (
  context: CommandContext,
  uri: string,
  { workload, range, facts }: { readonly workload: Workload; readonly range: BenchRange; readonly facts: readonly string[] },
): Promise<BenchTarget> => {
  const client = await openExport(uri, workload, context.io.interrupted);
  try {
    const limits = limitsOf(client.info);
    return { uri, client, limits, where: placeWorkload(workload, limits, range), facts };
  } catch (error) {
    await leave([client]);
    throw error;
  }
};

export type BenchTargets = AsyncDisposable & { readonly all: readonly BenchTarget[] };

/** Looks at the exports and puts the workload onto them. Sends nothing but a handshake; the connections end with the result. */
export const targetsOf = async (
  context: CommandContext,
  names: readonly string[],
  workload: Workload,
  range: BenchRange,
): Promise<BenchTargets> => {
  const all: BenchTarget[] = [];
  const disconnect = (): Promise<void> => leave(all.map(({ client }) => client));
  const known: Array<{ readonly uri: string; readonly facts: readonly string[] }> = [];
  // Before any connection of ours, which would be one of the facts.
  for (const name of names) {
    const uri = await uriOf(context, name);
    known.push({ uri, facts: writes(workload) ? await engineFacts(context, uri) : [] });
  }
  try {
    for (const { uri, facts } of known) all.push(await targetOf(context, uri, { workload, range, facts }));
  } catch (error) {
    await disconnect();
    throw error;
  }
  return { all, [Symbol.asyncDispose]: disconnect };
};

/**
 * Says what is known about the exports that will be written over, and asks. Reading asks nobody.
 * @throws TwinvolError `NOT_CONFIRMED`
 */
export const confirmWrites = async (
  context: CommandContext,
  workload: Workload,
  targets: readonly BenchTarget[],
  isYes: boolean,
): Promise<void> => {
  if (!writes(workload)) return;
  for (const { uri, where, facts } of targets) {
    for (const fact of facts) context.note(`${context.paintError('yellow', 'WARNING:')} ${fact}`);
    if (isYes) continue;
    if (!context.isInteractive) {
      throw new TwinvolError('NOT_CONFIRMED', `the workload writes over the data of ${uri}, and there is no terminal to ask on`, {
        remedy: 'give --yes if that data may be lost, or --rw randread or --rw read to read only',
      });
    }
    const what = `${formatSize(where.length)} at ${where.offset} of ${printable(uri)}`;
    await confirmDestruction(context, `write over the data in ${what}?`, `nothing was written to ${uri}`);
  }
};
