/**
 * The engine as a process: what `twinvol serve` runs, and what the command line does on a store without one.
 */
import { join, resolve } from 'node:path';
import { destination, pino } from 'pino';
import { TwinvolError } from './core/faults.ts';
import type { StatusView } from './core/views.ts';
import { openHostedDevice } from './hosted-device.ts';
import type { HostedDevice, HostedOptions } from './hosted-device.ts';
import type { TlsIdentity } from './platform/mutual-tls.ts';
import { readPrivateFile } from './platform/private-file.ts';
import { CONTROL_SOCKET_NAME } from './wire/control-frames.ts';

export { initAuthority, issueServer } from './certificates.ts';
export { checkStore } from './store/check.ts';
export { initStore } from './store/init.ts';

export type ServeOptions = {
  /** The store's directory. */
  readonly store: string;
  /** Path of the NBD socket. Default, without `nbdTcp`: `nbd.sock` in the store. */
  readonly nbdUnix?: string;
  /** `HOST:PORT` */
  readonly nbdTcp?: string;
  readonly tls?: {
    readonly certFile: string;
    readonly keyFile: string;
    /** Clients must show a certificate of this authority. */
    readonly caFile?: string;
    /** Clients that do not use TLS are refused on TCP. Default: where `caFile` is given, since it would be no gate otherwise. */
    readonly required?: boolean;
  };
  /** A level of pino. Default `warn`; JSON on standard error. */
  readonly logLevel?: string;
  readonly lanes?: number;
  /** Further addresses under which hosts reach the TCP exports: `HOST` or `HOST:PORT`. */
  readonly advertise?: readonly string[];
  /** `HOST:PORT` on which the agents of hosts come in over mutual TLS. */
  readonly agentTcp?: string;
  /** A command of the shell that is run for each warning, with the event as JSON on its standard input. */
  readonly onWarning?: string;
};

export type Served = {
  readonly ready: {
    readonly control: string;
    readonly nbd: readonly string[];
    /** Where agents come in: `unix:PATH`, `tls:HOST:PORT`. */
    readonly agents: readonly string[];
    readonly status: StatusView;
  };
  /** Resolves when the engine has ended in order; rejects with what went wrong. */
  readonly closed: Promise<void>;
  /** Ends the engine in order. Calling it again waits for the same end. */
  drain(): Promise<void>;
};

/** @throws TwinvolError as `openEngine`, and `USAGE` for a TLS file that is not there */
export const serve = async (options: ServeOptions): Promise<Served> => {
  const log = pino({ name: 'twinvol', level: options.logLevel ?? 'warn' }, destination({ dest: 2, sync: true }));
  const controlPath = join(resolve(options.store), CONTROL_SOCKET_NAME);
  const { agentTcp, onWarning, tls } = options;
  const device = await openHostedDevice({
    engine: engineOptions(options),
    controlPath,
    log,
    ...(agentTcp === undefined ? {} : { agentTcp }),
    ...(agentTcp === undefined || tls?.caFile === undefined ? {} : { agentTls: agentIdentity(tls, tls.caFile) }),
    ...(onWarning === undefined ? {} : { onWarning }),
  });
  const status = device.engine.status();
  const { unix, tls: address } = device.agents;
  const agents = [`unix:${unix}`, ...(address === null ? [] : [`tls:${address}`])];
  return { ready: { control: controlPath, nbd: status.sockets.nbd, agents, status }, ...ending(device) };
};

const ending = (device: HostedDevice): Pick<Served, 'closed' | 'drain'> => {
  let end: (how: Promise<void>) => void = () => undefined;
  const closed = new Promise<void>((settle) => {
    end = settle;
  });
  // Whoever waits for the end is told; nobody has to.
  closed.catch(() => undefined);
  let draining: Promise<void> | null = null;
  const drain = (): Promise<void> => {
    if (draining === null) {
      draining = device.close();
      end(draining);
    }
    return draining;
  };
  return { closed, drain };
};

/** The agents' listener shows the certificate of the NBD one, where that asks for certificates too. */
const agentIdentity = ({ certFile, keyFile }: NonNullable<ServeOptions['tls']>, caFile: string): TlsIdentity => ({
  certificate: pemOf(certFile, 'certificate'),
  key: pemOf(keyFile, 'key'),
  authority: pemOf(caFile, "authority's certificate"),
});

const engineOptions = ({ store, nbdUnix, nbdTcp, tls, lanes, advertise }: ServeOptions): HostedOptions['engine'] => ({
  store,
  ...(nbdUnix === undefined ? {} : { nbdUnix }),
  ...(nbdTcp === undefined ? {} : { nbdTcp }),
  ...(lanes === undefined ? {} : { lanes }),
  ...(advertise === undefined ? {} : { advertise }),
  ...(tls === undefined || nbdTcp === undefined ? {} : { tls: tlsMaterial(tls) }),
});

const tlsMaterial = ({
  certFile,
  keyFile,
  caFile,
  required = caFile !== undefined,
}: NonNullable<ServeOptions['tls']>): NonNullable<HostedOptions['engine']['tls']> => ({
  certPem: pemOf(certFile, 'certificate'),
  keyPem: pemOf(keyFile, 'key'),
  ...(caFile === undefined ? {} : { caPem: pemOf(caFile, "authority's certificate") }),
  required,
});

const pemOf = (path: string, what: string): string => {
  const pem = readPrivateFile(path);
  if (pem === null) throw new TwinvolError('USAGE', `the ${what} ${path} does not exist`, { remedy: 'name a PEM file' });
  if (!pem.includes('-----BEGIN ')) throw new TwinvolError('USAGE', `${path} is no PEM file`, { remedy: `name the ${what} as a PEM file` });
  return pem;
};
