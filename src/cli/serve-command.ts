/**
 * `twinvol init`, `serve` and `store check`: the commands that work on a store without an engine, or are the engine.
 * They come from the composition root, src/serve.ts; nothing else of the command line may touch it.
 */
import type { Command } from 'commander';
import { EXIT, TwinvolError } from '../core/faults.ts';
import { formatSize } from '../core/units.ts';
import type { StatusView } from '../core/views.ts';
import { choiceArgument, collect, numberArgument, sizeArgument } from './arguments.ts';
import { addCommand, addGroup } from './command-builder.ts';
import type { CommandContext } from './command-context.ts';
import { given } from './given.ts';
import { textFields } from './text-table.ts';

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

export const registerInit = (program: Command, context: CommandContext): void => {
  addCommand(program, 'init', 'make a store in an empty or new directory', [
    'init /srv/twinvol',
    'init /srv/twinvol --region-size 4M --pv-size 256G',
  ])
    .argument('<DIR>', 'the directory')
    .option('--region-size <SIZE>', 'of a physical region: a power of two, 64K to 64M; default 1M', sizeArgument)
    .option('--pv-size <SIZE>', 'of a physical volume (a sparse file); default 64G', sizeArgument)
    .action(async (directory: string, { regionSize, pvSize }: { regionSize?: number; pvSize?: number }) => {
      const { initStore } = await import('../serve.ts');
      const { uuid } = await initStore(directory, given({ regionBytes: regionSize, pvBytes: pvSize }));
      context.print({ directory, uuid }, () => `store ${directory} made (${uuid}); twinvol serve --store ${directory} starts its engine`);
    });
};

export const registerStore = (program: Command, context: CommandContext): void => {
  const store = addGroup(program, 'store', 'look at a store that no engine has open');
  addCommand(store, 'check', 'verify all invariants of a store; changes nothing; exits 2 when something is damaged', [
    'store check /srv/twinvol',
  ])
    .argument('[DIR]', "the store's directory; left out: that of --store or TWINVOL_STORE")
    .action(async (named: string | undefined) => {
      const { checkStore } = await import('../serve.ts');
      const report = await checkStore(named ?? context.storeDirectory);
      context.print(report, () => {
        const lines = report.findings.map(({ severity, file, record, text }) => {
          const place = record === null ? file : `${file}, record ${record}`;
          return `${context.paint(severity === 'damage' ? 'red' : 'yellow', severity)}: ${place}: ${text}`;
        });
        if (report.summary !== null) {
          const { uuid, formatVersion, regionBytes, physicalVolumes, volumes, pairs, regions, journalRecords, wasCleanShutdown } =
            report.summary;
          const fields = [
            ['uuid', `${uuid}, format ${formatVersion}`],
            ['volumes', `${volumes}, ${pairs} pairs`],
            [
              'regions',
              `${regions.total} of ${formatSize(regionBytes)} in ${physicalVolumes} physical volumes, ${regions.unassigned} unassigned, ${regions.scrubbing} being cleared`,
            ],
            [
              'journal',
              `${journalRecords} records, ${wasCleanShutdown ? 'shut down cleanly' : 'not shut down cleanly: the next start recovers'}`,
            ],
          ] as const;
          lines.push(textFields(fields, context.paint));
        }
        return [...lines, report.ok ? 'the store is sound' : 'the store is damaged'].join('\n');
      });
      if (!report.ok) context.exitStatus = EXIT.broken;
    });
};

type ServeCommandOptions = {
  readonly nbdUnix?: string;
  readonly nbdTcp?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly tlsRequired?: boolean;
  readonly logLevel?: string;
  readonly lanes?: number;
  readonly advertise?: readonly string[];
  readonly agentTcp?: string;
  readonly onWarning?: string;
};

/** TLS needs both files of the server, and TCP to be of use. */
const tlsOf = ({ tlsCert, tlsKey, tlsCa, tlsRequired, nbdTcp, agentTcp }: ServeCommandOptions) => {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined && tlsRequired === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new TwinvolError('USAGE', 'TLS needs a certificate and its key', { remedy: 'give both --tls-cert FILE and --tls-key FILE' });
  }
  if (nbdTcp === undefined && agentTcp === undefined)
    throw new TwinvolError('USAGE', 'TLS is for TCP, and no --nbd-tcp is given', { remedy: 'give --nbd-tcp HOST:PORT' });
  return { certFile: tlsCert, keyFile: tlsKey, ...given({ caFile: tlsCa, required: tlsRequired }) };
};

const startLine = ({ store, lanes, native, version }: StatusView): string => {
  const live = native.fsExt ? 'fs-ext' : 'no addon';
  const ways = `${live}: lock ${native.fileLock}, holes ${native.holeSeek}, space ${native.spaceReclaim}`;
  return `twinvol ${version}: store ${store.directory} (${store.uuid}), ${lanes.count} lanes (${lanes.handover}), ${ways}\n`;
};

/** What the start has to copy again, and why; nothing where nothing was wrong. */
const recoveryLine = ({ durability: { wasCleanShutdown, lastRecoveryBytes } }: StatusView): string => {
  if (wasCleanShutdown && lastRecoveryBytes === 0) return '';
  const why = wasCleanShutdown ? 'a bitmap or file of intents was damaged' : 'the last run did not end in order';
  const what =
    lastRecoveryBytes === 0 ? 'nothing has to be copied again' : `${formatSize(lastRecoveryBytes)} may differ and are copied again`;
  return `recovered: ${why}; ${what}\n`;
};

const serveStore = async (context: CommandContext, options: ServeCommandOptions): Promise<void> => {
  const { interrupted, stdout } = context.io;
  const tls = tlsOf(options);
  const { serve } = await import('../serve.ts');
  const { tlsCert: _cert, tlsKey: _key, tlsCa: _ca, tlsRequired: _required, ...rest } = options;
  const engine = await serve({ store: context.storeDirectory, ...given({ ...rest, tls }) });
  const drained = new Promise<void>((resolve, reject) => {
    const drain = (): void => {
      context.note('draining: connections are told to go, what is acknowledged is made durable');
      engine.drain().then(resolve, reject);
    };
    if (interrupted.aborted) drain();
    else interrupted.addEventListener('abort', drain, { once: true });
  });
  const { control, nbd, agents, status } = engine.ready;
  stdout.write(
    context.json
      ? `${JSON.stringify({ ready: { control, nbd, agents }, status })}\n`
      : `${startLine(status)}${recoveryLine(status)}agents ${agents.join(' ')}\nready ${nbd.join(' ')} control ${control}\n`,
  );
  await Promise.race([engine.closed, drained]);
  await engine.closed;
};

export const registerServe = (program: Command, context: CommandContext): void => {
  addCommand(program, 'serve', 'run the engine of a store in the foreground; SIGTERM and Ctrl-C drain it', [
    'serve --store /srv/twinvol',
    'serve --store /srv/twinvol --nbd-tcp 0.0.0.0:10809 --tls-cert cert.pem --tls-key key.pem --tls-ca ca.pem',
  ])
    .option('--nbd-unix <PATH>', 'export the volumes on this unix socket; default, without --nbd-tcp: nbd.sock in the store')
    .option('--nbd-tcp <HOST:PORT>', 'export the volumes on this TCP address')
    .option('--tls-cert <FILE>', "the server's certificate (PEM)")
    .option('--tls-key <FILE>', 'its key (PEM)')
    .option('--tls-ca <FILE>', 'clients must show a certificate of this authority (PEM)')
    .option('--tls-required', 'refuse clients that do not use TLS')
    .option(
      '--advertise <HOST[:PORT]>',
      'a further name or address under which hosts reach --nbd-tcp; an inquiry recognises uses by it (repeatable)',
      collect,
    )
    .option('--agent-tcp <HOST:PORT>', "let the agents of hosts in here over mutual TLS, by --tls-* or the store's own certificates")
    .option('--on-warning <COMMAND>', 'run by the shell for each warning, with the event as JSON on its input; 10 s at most')
    .option('--log-level <LEVEL>', `${LOG_LEVELS.join(', ')}; default warn; JSON on stderr`, choiceArgument('log level', LOG_LEVELS))
    .option('--lanes <N>', 'threads that serve connections; default: by the number of processors', numberArgument('number of lanes', 1, 64))
    .action((options: ServeCommandOptions) => serveStore(context, options));
};
