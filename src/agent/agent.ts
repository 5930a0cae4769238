/**
 * The agent of a host: keeps one outgoing control connection to the device and answers, for as long as it runs, whether
 * this host uses a volume (specification 6).
 *
 * It opens no port. It starts without root and then says what it cannot see. When the connection ends it connects anew,
 * after a wait that doubles each time up to a limit and of which a part is chance, so that the agents of many hosts do
 * not come back all at once.
 */
import type { Socket } from 'node:net';
import { TwinvolError } from '../core/faults.ts';
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';
import type { Clock } from '../platform/clock.ts';
import { SystemClock } from '../platform/clock.ts';
import { SystemTools } from '../platform/host-tools.ts';
import { HostTree } from '../platform/host-tree.ts';
import type { TlsIdentity } from '../platform/mutual-tls.ts';
import { connectMutualTls } from '../platform/mutual-tls.ts';
import { connectUnix } from '../platform/unix-socket.ts';
import type { AgentLog } from './agent-log.ts';
import type { SessionContext, SessionEnd } from './agent-session.ts';
import { AgentSession } from './agent-session.ts';
import { inspectHost } from './inspect.ts';
import { LookQueue } from './look-queue.ts';
import type { WatchTimes } from './mount-watch.ts';
import { WATCH_TIMES_DEFAULT } from './mount-watch.ts';
import type { HostProbe } from './snapshot.ts';
import { takeSnapshot } from './snapshot.ts';

export type AgentControl =
  | { readonly kind: 'unix'; readonly path: string }
  | {
      readonly kind: 'tls';
      readonly host: string;
      readonly port: number;
      /** The name that the device's certificate has to be for; `host` where it is left out. */
      readonly serverName?: string;
      readonly identity: TlsIdentity;
    };

export type RetryTimes = { readonly firstMs: number; readonly lastMs: number };
export const RETRY_TIMES_DEFAULT: RetryTimes = { firstMs: 250, lastMs: 30_000 };

export type AgentOptions = {
  readonly control: AgentControl;
  /** The name under which the device knows this host. */
  readonly host: string;
  /** The enrolment token. Over TLS the certificate proves the name, and the token may be left out. */
  readonly token?: string;
  readonly log: AgentLog;
  readonly probe?: HostProbe;
  readonly clock?: Clock;
  readonly times?: WatchTimes;
  readonly retry?: RetryTimes;
};

const isRoot = (): boolean => process.geteuid?.() === 0;

export const systemProbe = (scope: HostProbe['scope'] = 'machine'): HostProbe => ({
  tree: new HostTree(),
  tools: new SystemTools(),
  scope,
});

/** What this agent cannot see of its host, one line each; empty where it sees everything. */
export const blindSpots = async (probe: HostProbe): Promise<readonly string[]> => {
  const snapshot = await takeSnapshot(probe, () => false);
  const lines = snapshot.gaps.map((gap) => `${gap.what}: ${gap.why}`);
  const hidden = snapshot.processes.filter((process) => process.openFiles === null).length;
  const whose = hidden === 1 ? 'one process holds: its' : `${hidden} processes hold: their`;
  return hidden === 0 ? lines : [...lines, `which connections ${whose} open files may not be read`];
};

const connectTo = (control: AgentControl, signal: AbortSignal): Promise<Socket> => {
  if (control.kind === 'unix') return connectUnix(control.path);
  const { host, port, serverName = host, identity } = control;
  return connectMutualTls({ host, port, serverName }, identity, signal);
};

/** Half of the wait is sure, half is chance. */
const waitBeforeTry = (tries: number, retry: RetryTimes): number => {
  const fullMs = Math.min(retry.lastMs, retry.firstMs * 2 ** Math.min(tries, 30));
  return fullMs / 2 + (Math.random() * fullMs) / 2;
};

const pause = (clock: Clock, waitMs: number, signal: AbortSignal): Promise<void> => {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = clock.after(waitMs, finish);
    signal.addEventListener('abort', finish);
  });
};

type Looks = {
  readonly probe: HostProbe;
  look(targets: readonly InquiryTarget[], deviceAddresses: readonly string[]): Promise<readonly VolumeFacts[]>;
};

/** Runs one connection to its end. Never rejects, but for mistakes that no repetition cures. */
const runSession = async (options: AgentOptions, looks: Looks, clock: Clock, signal: AbortSignal): Promise<SessionEnd> => {
  let socket: Socket;
  try {
    socket = await connectTo(options.control, signal);
  } catch (error) {
    if (error instanceof TwinvolError) throw error;
    return { reason: error instanceof Error ? error.message : 'the connection failed', wasWelcome: false, wasRefused: false };
  }
  return new Promise((resolve) => {
    const { host, token = null, log, times = WATCH_TIMES_DEFAULT } = options;
    const context: SessionContext = {
      ...{ host, token, isPrivileged: isRoot(), pid: process.pid, tree: looks.probe.tree, clock, times, log },
      look: (targets, deviceAddresses) => looks.look(targets, deviceAddresses),
    };
    const stop = (): void => session.end('the agent stops');
    const session = new AgentSession(socket, context, (end) => {
      signal.removeEventListener('abort', stop);
      resolve(end);
    });
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
  });
};

/** All looks go through one queue; the addresses of the device are those of the connection in use. */
const makeLooks = (probe: HostProbe): Looks => {
  let deviceAddresses: readonly string[] = [];
  const queue = new LookQueue((targets) => inspectHost(probe, targets, deviceAddresses));
  return {
    probe,
    look: (targets, addresses) => {
      deviceAddresses = addresses;
      return queue.ask(targets);
    },
  };
};

/**
 * Runs until `signal` is aborted.
 * @throws TwinvolError `USAGE` for certificates or keys that cannot be used
 */
export const runAgent = async (options: AgentOptions, signal: AbortSignal): Promise<void> => {
  const { log, clock = new SystemClock(), retry = RETRY_TIMES_DEFAULT, probe = systemProbe() } = options;
  const looks = makeLooks(probe);
  for (const line of await blindSpots(probe)) log.warn({ host: options.host }, `the agent cannot see ${line}`);
  let tries = 0;
  while (!signal.aborted) {
    const end = await runSession(options, looks, clock, signal);
    if (signal.aborted) return;
    // A device that refuses is asked at the slowest pace; one that had welcomed the agent, at the fastest again.
    tries = end.wasRefused ? 30 : end.wasWelcome ? 0 : tries + 1;
    const waitMs = waitBeforeTry(tries, retry);
    log.warn({ host: options.host, waitMs: Math.round(waitMs) }, `no connection to the device: ${end.reason}`);
    await pause(clock, waitMs, signal);
  }
};
