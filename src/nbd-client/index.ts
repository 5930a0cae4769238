/**
 * The NBD client as a package of its own, `twinvol/nbd-client`: everything that its users may import.
 *
 *     await using client = await connect('nbd+unix:///vol1?socket=/run/nbd.sock');
 *     const block = await client.read(0, 4096);
 */
export type { Extent } from './call.ts';
export type { ConnectionEvent, ConnectOptions, NbdTlsOptions, ReconnectOptions } from './connect-options.ts';
export type { ListedExport } from './negotiation.ts';
export {
  type BlockStatus,
  type BlockStatusOptions,
  connect,
  listExports,
  NbdClient,
  type NbdClientInfo,
  type RequestOptions,
  type WriteOptions,
  type ZeroOptions,
} from './nbd-client.ts';
export { NbdError, type NbdErrorCode } from './nbd-error.ts';
export { formatNbdUri, type NbdUri, parseNbdUri } from '../wire/nbd-uri.ts';
