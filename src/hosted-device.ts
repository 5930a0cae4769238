/**
 * An engine with all that stands around it: the control socket, the hosts' agents, certificates, and the user's warning
 * command. Joined here, for the engine's process (`serve.ts`) and for the library (`index.ts`).
 *
 * Ends in this order: the control socket takes no more requests and answers what is in flight, then the agents' inquiries
 * end with what is there (silence is no permission), then the engine.
 */
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import { certificateDesk, serverIdentity } from './certificates.ts';
import { tellAgentEvents } from './control/agent-events.ts';
import { EventFollower } from './control/event-follower.ts';
import { InquiryService } from './control/inquiry-service.ts';
import { ControlServer } from './control/server.ts';
import { WarningCommand } from './control/warning-command.ts';
import type { EventView } from './core/views.ts';
import type { DeviceEngine } from './engine/device.ts';
import { parseHostPort } from './engine/host-port.ts';
import { openEngine } from './engine/open-engine.ts';
import type { EngineOptions } from './engine/open-engine.ts';
import type { TlsIdentity } from './platform/mutual-tls.ts';
import { AGENT_SOCKET_NAME } from './wire/agent-messages.ts';

export type HostedOptions = {
  readonly engine: Omit<EngineOptions, 'desk' | 'certificates' | 'controlPath' | 'log'>;
  /** Path of the control socket; the agents' socket is beside it. */
  readonly controlPath: string;
  readonly log: Logger;
  /** `HOST:PORT` on which agents come in over mutual TLS; port 0 takes a free one. */
  readonly agentTcp?: string;
  /** What that listener shows; default: the certificate that the device's own authority made for it. */
  readonly agentTls?: TlsIdentity;
  /** A command of the shell that is run for each warning. */
  readonly onWarning?: string;
};

export type HostedDevice = {
  readonly engine: DeviceEngine;
  readonly agents: { readonly unix: string; readonly tls: string | null };
  /** Ends everything in order. Calling it again waits for the same end. */
  close(): Promise<void>;
};

/** Changes come in bursts, and the agents need to hear of the last state only. */
const REFRESH_MS = 20;

type Part = { close(): Promise<void> };

/** @throws TwinvolError as `openEngine`; `USAGE` for certificates that cannot be used, `NOT_SUPPORTED` for an address that cannot be listened on */
export const openHostedDevice = async (options: HostedOptions): Promise<HostedDevice> => {
  const { controlPath, log, agentTcp } = options;
  const { store } = options.engine;
  const place = agentTcp === undefined ? null : parseHostPort(agentTcp);
  const identity = place === null ? null : (options.agentTls ?? serverIdentity(store));
  let service: InquiryService | null = null;
  const engine = await openEngine({
    ...options.engine,
    controlPath,
    log,
    certificates: certificateDesk(store),
    desk: (directory) => {
      service = new InquiryService({ hosts: () => directory.hosts(), watchOf: (host) => directory.watchOf(host), log });
      const nameOf = (volume: number): string | null => directory.nameOf(volume);
      tellAgentEvents(service, (kind, host, data) => directory.tell(kind, host, data), nameOf);
      return service;
    },
  });
  const parts: Part[] = [engine];
  try {
    const agents = service as InquiryService | null;
    if (agents === null) throw new Error('the engine made no use of its agent desk');
    parts.push(agents);
    const unix = join(dirname(controlPath), AGENT_SOCKET_NAME);
    await agents.listenUnix(unix);
    const listening = place === null || identity === null ? null : await agents.listenTls(place, identity);
    parts.push(...followers(engine, agents, options));
    const control = new ControlServer(engine, controlPath, { log });
    await control.listen();
    parts.push(control);
    const tls = listening === null ? null : addressText(listening);
    log.info({ unix, tls }, 'agents are welcome');
    let closed: Promise<void> | null = null;
    const close = (): Promise<void> => {
      closed ??= closeAll(parts, log);
      return closed;
    };
    return { engine, agents: { unix, tls }, close };
  } catch (error) {
    await closeAll(parts, log).catch((closing: unknown) => log.error({ err: closing }, 'the engine did not end in order'));
    throw error;
  }
};

const addressText = ({ host, port }: { readonly host: string; readonly port: number }): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** Last one first; the engine's end is the one that counts. */
const closeAll = async (parts: readonly Part[], log: Logger): Promise<void> => {
  for (const part of [...parts].reverse().slice(0, -1)) {
    await part.close().catch((error: unknown) => log.error({ err: error }, 'a part of the device did not close in order'));
  }
  await parts[0]?.close();
};

/** What changes for the hosts is told to their agents, and warnings to the user's command. */
const followers = (engine: DeviceEngine, agents: InquiryService, { log, onWarning }: HostedOptions): readonly Part[] => {
  const command = onWarning === undefined ? null : new WarningCommand({ command: onWarning, log });
  let timer: NodeJS.Timeout | null = null;
  const refreshSoon = (): void => {
    timer ??= setTimeout(() => {
      timer = null;
      agents.refresh();
    }, REFRESH_MS).unref();
  };
  const follower = new EventFollower(
    engine,
    log,
    (event) => {
      if (concernsHosts(event)) refreshSoon();
      command?.take(event);
    },
    refreshSoon,
  );
  const refreshing: Part = {
    close: async () => {
      await follower.close();
      if (timer !== null) clearTimeout(timer);
    },
  };
  return command === null ? [refreshing] : [command, refreshing];
};

/** Hosts, grants, volumes and settings that changed; not what the agents said themselves. */
const concernsHosts = ({ kind, object, id }: EventView): boolean => {
  if (kind === 'notice' || kind === 'warning') return false;
  return object === 'host' || object === 'volume' || (object === 'device' && id === 'settings');
};
