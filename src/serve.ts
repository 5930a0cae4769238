/**
 * The engine as a process: what `twinvol serve` runs. Joins the engine with the control socket and the log.
 *
 * Ends in this order: the control socket takes no more requests and answers what is in flight, then the engine drains
 * its NBD connections, makes everything durable and gives the store up.
 */
import { join, resolve } from 'node:path';
import { destination, pino } from 'pino';
import type { Logger } from 'pino';
import { ControlServer } from './control/server.ts';
import { TwinvolError } from './core/faults.ts';
import type { StatusView } from './core/views.ts';
import type { DeviceEngine } from './engine/device.ts';
import { openEngine } from './engine/open-engine.ts';
import type { EngineOptions } from './engine/open-engine.ts';
import { readPrivateFile } from './platform/private-file.ts';
import { CONTROL_SOCKET_NAME } from './wire/control-frames.ts';

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
};

export type Served = {
  readonly ready: { readonly control: string; readonly nbd: readonly string[]; readonly status: StatusView };
  /** Resolves when the engine has ended in order; rejects with what went wrong. */
  readonly closed: Promise<void>;
  /** Ends the engine in order. Calling it again waits for the same end. */
  drain(): Promise<void>;
};

/** @throws TwinvolError as `openEngine`, and `USAGE` for a TLS file that is not there */
export const serve = async (options: ServeOptions): Promise<Served> => {
  const log = pino({ name: 'twinvol', level: options.logLevel ?? 'warn' }, destination({ dest: 2, sync: true }));
  const controlPath = join(resolve(options.store), CONTROL_SOCKET_NAME);
  const engine = await openEngine({ ...engineOptions(options), log, controlPath });
  const control = new ControlServer(engine, controlPath, { log });
  try {
    await control.listen();
  } catch (error) {
    await engine.close();
    throw error;
  }
  const status = engine.status();
  return { ready: { control: controlPath, nbd: status.sockets.nbd, status }, ...ending(engine, control, log) };
};

const ending = (engine: DeviceEngine, control: ControlServer, log: Logger): Pick<Served, 'closed' | 'drain'> => {
  let end: (how: Promise<void>) => void = () => undefined;
  const closed = new Promise<void>((settle) => {
    end = settle;
  });
  // Whoever waits for the end is told; nobody has to.
  closed.catch(() => undefined);
  let draining: Promise<void> | null = null;
  const drainOnce = async (): Promise<void> => {
    await control.close().catch((error: unknown) => log.error({ err: error }, 'the control socket did not close in order'));
    await engine.close();
  };
  const drain = (): Promise<void> => {
    if (draining === null) {
      draining = drainOnce();
      end(draining);
    }
    return draining;
  };
  return { closed, drain };
};

const engineOptions = ({ store, nbdUnix, nbdTcp, tls, lanes }: ServeOptions): EngineOptions => ({
  store,
  ...(nbdUnix === undefined ? {} : { nbdUnix }),
  ...(nbdTcp === undefined ? {} : { nbdTcp }),
  ...(lanes === undefined ? {} : { lanes }),
  ...(tls === undefined ? {} : { tls: tlsMaterial(tls) }),
});

const tlsMaterial = ({
  certFile,
  keyFile,
  caFile,
  required = caFile !== undefined,
}: NonNullable<ServeOptions['tls']>): NonNullable<EngineOptions['tls']> => ({
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
