/**
 * NBD connections as the main thread sees them: where the engine listens, which lane has whom, and how they are ended.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TwinvolError } from '../core/faults.ts';
import type { ClientView } from '../core/views.ts';
import { formatNbdUri } from '../wire/nbd-uri.ts';
import type { ConnectionReport, FromLane, TlsMaterial } from './lane-messages.ts';
import { type Accepted, clearUnixPath, listenFault, Listener } from './listener.ts';
import type { ListenOptions } from './plane-api.ts';
import type { LaneLink, WorkerSet } from './worker-set.ts';

type OpenClient = { readonly lane: number; readonly volume: number | null; readonly peer: string };

const LISTEN_AGAIN_MS = 5000;
const LISTEN_RETRY_MS = 20;

export class Clients {
  readonly #workers: WorkerSet;
  readonly #handover: 'descriptor' | 'own-listener';
  readonly #open = new Map<number, OpenClient>();
  readonly #listener = new Listener((accepted) => this.#accepted(accepted));
  readonly #unixPaths: string[] = [];
  /** How to listen on a lane, where lanes listen themselves: for the successor of one that died. */
  readonly #onLane: Array<() => Promise<unknown>> = [];
  readonly #laneLoad: number[] = [];
  #lastId = 0;

  constructor(workers: WorkerSet, handover: 'descriptor' | 'own-listener') {
    this.#workers = workers;
    this.#handover = handover;
  }

  /** @returns the base URI of each socket, without an export's name */
  async listen(options: ListenOptions): Promise<readonly string[]> {
    if (options.tls !== undefined) {
      const { certPem, keyPem, caPem, required } = options.tls;
      this.#workers.setTls({ certPem, keyPem, caPem: caPem ?? null, required } satisfies TlsMaterial);
    }
    const uris: string[] = [];
    if (options.unixPath !== undefined) {
      await this.#listenUnix(options.unixPath);
      this.#unixPaths.push(options.unixPath);
      uris.push(formatNbdUri({ tls: false, where: { kind: 'unix', path: options.unixPath }, exportName: '' }));
    }
    if (options.tcp !== undefined) {
      const port = await this.#listenTcp(options.tcp.host, options.tcp.port);
      uris.push(formatNbdUri({ tls: options.tls !== undefined, where: { kind: 'tcp', host: options.tcp.host, port }, exportName: '' }));
    }
    return uris;
  }

  async #listenUnix(path: string): Promise<void> {
    if (this.#handover === 'descriptor') return this.#listener.unix(path);
    await this.#listenUnixOnLane(path);
    this.#onLane.push(() => this.#listenUnixOnLane(path));
  }

  async #listenUnixOnLane(path: string): Promise<void> {
    await clearUnixPath(path);
    // The mask is the process's, and a thread cannot set it: nobody else may connect at any moment.
    const mask = process.umask(0o077);
    try {
      await this.#listenOnLane(path, { unixPath: path, host: null, port: 0 });
    } finally {
      process.umask(mask);
    }
  }

  async #listenTcp(host: string, port: number): Promise<number> {
    if (this.#handover === 'descriptor') return this.#listener.tcp(host, port);
    const given = await this.#listenOnLane(`${host}:${port}`, { unixPath: null, host, port });
    this.#onLane.push(() => this.#listenOnLane(`${host}:${given}`, { unixPath: null, host, port: given }));
    return given;
  }

  async #listenOnLane(
    name: string,
    where: { readonly unixPath: string | null; readonly host: string | null; readonly port: number },
  ): Promise<number> {
    try {
      return await (this.#workers.lanes[0] as LaneLink).ask<number>((id) => ({ type: 'listen', id, ...where }));
    } catch (error) {
      throw listenFault(name, (error as TwinvolError).details['code'] as string, error);
    }
  }

  /** A lane that listened itself died: its successor listens where it did, once the thread has given its sockets up. */
  async listenAgain(): Promise<void> {
    const deadline = performance.now() + LISTEN_AGAIN_MS;
    for (const listen of this.#onLane) {
      for (let isListening = false; !isListening; ) {
        try {
          await listen();
          isListening = true;
        } catch (error) {
          if (performance.now() > deadline) throw error;
          await sleep(LISTEN_RETRY_MS);
        }
      }
    }
  }

  /** The lane with the fewest connections gets the next one. */
  #accepted(accepted: Accepted): void {
    let lane = 0;
    for (let other = 1; other < this.#workers.lanes.length; other += 1) if (this.#load(other) < this.#load(lane)) lane = other;
    this.#laneLoad[lane] = this.#load(lane) + 1;
    this.#lastId += 1;
    this.#open.set(this.#lastId, { lane, volume: null, peer: accepted.address });
    (this.#workers.lanes[lane] as LaneLink).send({ type: 'connection', id: this.#lastId, ...accepted });
  }

  #load(lane: number): number {
    return this.#laneLoad[lane] ?? 0;
  }

  opened(lane: number, message: Extract<FromLane, { type: 'opened' }>): void {
    this.#open.set(message.id, { lane, volume: message.volume, peer: message.peer });
  }

  closed(lane: number, id: number): void {
    if (this.#open.delete(id)) this.#laneLoad[lane] = Math.max(0, this.#load(lane) - 1);
  }

  /** A lane died: its connections are gone. @returns who they were */
  laneLost(lane: number): ReadonlyArray<{ readonly id: number; readonly volume: number | null; readonly peer: string }> {
    const gone = [...this.#open].filter(([, client]) => client.lane === lane);
    for (const [id] of gone) this.#open.delete(id);
    this.#laneLoad[lane] = 0;
    return gone.map(([id, { volume, peer }]) => ({ id, volume, peer }));
  }

  count(volume?: number): number {
    if (volume === undefined) return this.#open.size;
    let count = 0;
    for (const client of this.#open.values()) if (client.volume === volume) count += 1;
    return count;
  }

  async views(): Promise<readonly ClientView[]> {
    const views: ClientView[] = [];
    const reports = await Promise.all(this.#workers.lanes.map((lane) => lane.ask<ConnectionReport[]>((id) => ({ type: 'report', id }))));
    for (const [lane, report] of reports.entries()) for (const client of report ?? []) views.push(viewOf(client, lane));
    return views.sort((left, right) => left.id - right.id);
  }

  /** Ends connections with the shutdown error. @returns how many, when they are gone */
  async end(which: { readonly client?: number; readonly volume?: number }): Promise<number> {
    const counts = await Promise.all(
      this.#workers.lanes.map((lane) =>
        lane.ask<number>((id) => ({ type: 'end', id, client: which.client ?? null, volume: which.volume ?? null })),
      ),
    );
    return counts.reduce((sum, count) => sum + (count ?? 0), 0);
  }

  stopListening(): void {
    this.#listener.close();
  }

  removeSockets(): void {
    for (const path of this.#unixPaths) fs.rmSync(path, { force: true });
  }
}

const viewOf = (client: ConnectionReport, lane: number): ClientView => ({
  id: client.id,
  volume: client.volume === null ? null : { number: client.volume, name: client.volumeName ?? '' },
  peer: client.peer,
  transport: client.transport,
  phase: client.phase,
  readOnly: client.readOnly,
  host: client.host,
  ref: client.ref,
  lane,
  connectedAtMs: client.connectedAtMs,
  readBytes: client.readBytes,
  writtenBytes: client.writtenBytes,
  requests: client.requests,
});
