/**
 * Where the exports are to be found: the sockets that the data plane listens on, as NBD URIs.
 *
 * A volume's URI is the first of these: the unix socket where there is one, since it needs no port and no certificate.
 * Hosts may use other words for the same place: a socket that listens on every address is reached by each of this
 * machine's, and behind a translator by names that only the operator knows (`advertised`). A host's agent recognises a
 * use by these words, so all of them go into an inquiry. (Connections that it does not recognise are still seen here.)
 */
import { ownAddresses } from '../platform/own-addresses.ts';
import { formatNbdUri } from '../wire/nbd-uri.ts';
import type { NbdUri } from '../wire/nbd-uri.ts';

type Endpoint = Pick<NbdUri, 'tls' | 'where'>;
type TcpWhere = Extract<NbdUri['where'], { kind: 'tcp' }>;
export type TcpPlace = { readonly host: string; readonly port: number };

/** Addresses of this machine come and go; they are looked at again after this time. */
const LOOK_MS = 5000;
/** Places that an inquiry names at most; each comes twice, by the volume's name and by its number. */
export const PLACES_MAX: number = 100;
const EVERYWHERE: ReadonlySet<string> = new Set(['0.0.0.0', '::', '']);

/** Names of volumes need no escapes. */
const PLAIN_NAME = /^[\w.-]*$/;

const aroundName = (endpoint: Endpoint | undefined, named: TcpPlace | undefined): readonly [string, string] | null => {
  if (endpoint === undefined) return null;
  const { where } = endpoint;
  const best = where.kind === 'tcp' && named !== undefined ? { ...where, ...named } : where;
  const uri = formatNbdUri({ ...endpoint, where: best, exportName: '' });
  const query = uri.indexOf('?');
  return query === -1 ? [uri, ''] : [uri.slice(0, query), uri.slice(query)];
};

export class ExportAddresses {
  readonly #localAddresses: () => readonly string[];
  #endpoints: readonly Endpoint[] = [];
  #advertised: readonly TcpPlace[] = [];
  #places: readonly Endpoint[] = [];
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #generation = 0;
  /** What stands before and behind the name of an export in its preferred URI. */
  #preferred: readonly [before: string, behind: string] | null = null;

  /** @param localAddresses addresses of this machine; by default as its interfaces have them */
  constructor(localAddresses: () => readonly string[] = ownAddresses) {
    this.#localAddresses = localAddresses;
  }

  /**
   * Called once, when the data plane listens.
   * @param advertised further names and ports under which hosts reach the TCP socket
   */
  set(endpoints: readonly Endpoint[], advertised: readonly TcpPlace[] = []): void {
    this.#endpoints = endpoints;
    this.#advertised = advertised;
    this.#lookedAtMs = Number.NEGATIVE_INFINITY;
    this.#preferred = aroundName(endpoints[0], advertised[0]);
  }

  /** Rises whenever `urisOf` gives other places than before. */
  get generation(): number {
    this.#look();
    return this.#generation;
  }

  /** URIs of an export: every place under which hosts reach it. */
  urisOf(exportName: string): readonly string[] {
    this.#look();
    return this.#places.map((place) => formatNbdUri({ ...place, exportName }));
  }

  /** The preferred URI; empty while nothing listens. A list of volumes asks for thousands: what is around the name is made once. */
  uriOf(exportName: string): string {
    if (this.#preferred === null) return '';
    const [before, behind] = this.#preferred;
    return before + (PLAIN_NAME.test(exportName) ? exportName : encodeURIComponent(exportName)) + behind;
  }

  /** The sockets without an export, for `status`. */
  bases(): readonly string[] {
    return this.#endpoints.map((endpoint) => formatNbdUri({ ...endpoint, exportName: '' }));
  }

  #look(): void {
    const atMs = performance.now();
    if (atMs - this.#lookedAtMs < LOOK_MS) return;
    this.#lookedAtMs = atMs;
    const places = this.#endpoints.flatMap((endpoint) => this.#placesOf(endpoint)).slice(0, PLACES_MAX);
    if (JSON.stringify(places) === JSON.stringify(this.#places)) return;
    this.#places = places;
    this.#generation += 1;
  }

  #placesOf(endpoint: Endpoint): readonly Endpoint[] {
    const { where, tls } = endpoint;
    if (where.kind !== 'tcp') return [endpoint];
    const own = EVERYWHERE.has(where.host) ? this.#localAddresses().filter((host) => isReached(host, where)) : [where.host];
    const places = [...this.#advertised, ...own.map((host) => ({ host, port: where.port }))];
    const unique = new Map(places.map((place) => [`${place.host} ${place.port}`, place]));
    return [...unique.values()].map(({ host, port }) => ({ tls, where: { ...where, host, port } }));
  }
}

/** An IPv4 socket takes no IPv6; one on `::` takes both. */
const isReached = (host: string, where: TcpWhere): boolean => where.host !== '0.0.0.0' || !host.includes(':');
