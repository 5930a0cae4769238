/**
 * Where the exports are to be found: the sockets that the data plane listens on, as NBD URIs.
 *
 * A volume's URI is the first of these: the unix socket where there is one, since it needs no port and no certificate.
 */
import { formatNbdUri } from '../wire/nbd-uri.ts';
import type { NbdUri } from '../wire/nbd-uri.ts';

export class ExportAddresses {
  #endpoints: readonly Pick<NbdUri, 'tls' | 'where'>[] = [];

  /** Called once, when the data plane listens. */
  set(endpoints: readonly Pick<NbdUri, 'tls' | 'where'>[]): void {
    this.#endpoints = endpoints;
  }

  /** URIs of an export, one for each socket; the first is the preferred one. */
  urisOf(exportName: string): readonly string[] {
    return this.#endpoints.map((endpoint) => formatNbdUri({ ...endpoint, exportName }));
  }

  /** The preferred URI; empty while nothing listens. */
  uriOf(exportName: string): string {
    const [preferred] = this.#endpoints;
    return preferred === undefined ? '' : formatNbdUri({ ...preferred, exportName });
  }

  /** The sockets without an export, for `status`. */
  bases(): readonly string[] {
    return this.urisOf('');
  }
}
