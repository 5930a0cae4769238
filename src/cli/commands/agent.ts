/**
 * `twinvol agent`: runs on a host, in the foreground, until SIGTERM or Ctrl-C. Answers the device's inquiries and reports
 * mounts as they happen. It needs no store and no root; without root it says what it cannot see.
 */
import type { Command } from 'commander';
import { statSync } from 'node:fs';
import type { AgentControl } from '../../agent/agent.ts';
import type { AgentLog } from '../../agent/agent-log.ts';
import { TwinvolError } from '../../core/faults.ts';
import { printable } from '../../core/inquiry-text.ts';
import { readPrivateFile } from '../../platform/private-file.ts';
import { choiceArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';

type AgentCommandOptions = {
  readonly control: string;
  readonly host: string;
  readonly tokenFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly serverName?: string;
  readonly scope?: 'machine' | 'namespace';
};

const usage = (text: string, remedy: string): TwinvolError => new TwinvolError('USAGE', text, { remedy });

const textOf = (path: string | undefined, option: string): string => {
  if (path === undefined) throw usage(`${option} is missing`, 'TLS needs --tls-cert, --tls-key and --tls-ca');
  const text = readPrivateFile(path);
  if (text === null) throw usage(`${path} does not exist`, `name a file with ${option}`);
  return text;
};

const controlOf = (options: AgentCommandOptions): AgentControl => {
  const { control, serverName } = options;
  const unix = /^unix:(.+)$/.exec(control)?.[1];
  if (unix !== undefined) return { kind: 'unix', path: unix };
  const match = /^tls:(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(control);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) throw usage(`"${control}" is no place of a device`, 'give unix:PATH (agents.sock of the store) or tls:HOST:PORT');
  const identity = {
    certificate: textOf(options.tlsCert, '--tls-cert'),
    key: textOf(options.tlsKey, '--tls-key'),
    authority: textOf(options.tlsCa, '--tls-ca'),
  };
  return { kind: 'tls', host, port: Number(match?.[3]), identity, ...(serverName === undefined ? {} : { serverName }) };
};

/** The token, and a remark if others may read it. */
const tokenOf = (context: CommandContext, path: string): string => {
  const token = readPrivateFile(path)?.trim() ?? '';
  if (token === '') throw usage(`${path} holds no token`, 'put the token that twinvol host add showed into it');
  if ((statSync(path).mode & 0o077) !== 0) context.note(`${context.paintError('yellow', 'note:')} others can read ${path}: chmod 600 it`);
  return token;
};

/** A line for each event on stderr; `connected` also on stdout, for whoever waits for it. */
const logOf = (context: CommandContext): AgentLog => {
  const line = (level: string, facts: object, text: string): void => {
    if (context.json) {
      context.io.stderr.write(`${JSON.stringify({ level, atMs: context.io.nowMs(), text, ...withoutStack(facts) })}\n`);
      return;
    }
    context.io.stderr.write(`${level === 'warn' ? `${context.paintError('yellow', 'warning:')} ` : ''}${printable(text)}\n`);
  };
  return {
    debug: () => {},
    info: (facts, text) => line('info', facts, text),
    warn: (facts, text) => line('warn', facts, text),
  };
};

const withoutStack = (facts: object): object => {
  const { err, ...rest } = facts as { readonly err?: unknown };
  return err === undefined ? rest : { ...rest, error: err instanceof Error ? err.message : 'unknown' };
};

const runHere = async (context: CommandContext, options: AgentCommandOptions): Promise<void> => {
  const control = controlOf(options);
  const { host, tokenFile, scope } = options;
  if (control.kind === 'unix' && tokenFile === undefined)
    throw usage('--token-file is missing', 'give the token that twinvol host add showed');
  const token = tokenFile === undefined ? {} : { token: tokenOf(context, tokenFile) };
  const { runAgent, systemProbe } = await import('../../agent/agent.ts');
  const { interrupted } = context.io;
  context.io.stdout.write(
    context.json ? `${JSON.stringify({ agent: host, control: options.control })}\n` : `agent of ${host}, for ${options.control}\n`,
  );
  await runAgent({ control, host, ...token, log: logOf(context), probe: systemProbe(scope ?? 'machine') }, interrupted);
};

export const registerAgent = (program: Command, context: CommandContext): void => {
  addCommand(program, 'agent', 'run on a host: answer whether it uses a volume, and report mounts; until SIGTERM or Ctrl-C', [
    'agent --host web1 --token-file /etc/twinvol/token --control unix:/srv/twinvol/agents.sock',
    'agent --host web1 --control tls:storage.example:10810 --tls-cert web1.crt --tls-key web1.key --tls-ca ca.crt',
  ])
    .requiredOption('--control <PLACE>', 'unix:PATH of agents.sock in the store, or tls:HOST:PORT')
    .requiredOption('--host <NAME>', 'the name under which the device knows this host')
    .option('--token-file <FILE>', 'holds the enrolment token; over TLS a certificate that is bound to the host is enough')
    .option('--tls-cert <FILE>', "the host's certificate (PEM)")
    .option('--tls-key <FILE>', 'its key (PEM)')
    .option('--tls-ca <FILE>', 'the authority of the device (PEM)')
    .option('--server-name <NAME>', "the name in the device's certificate, where it is another one than in --control")
    .option(
      '--scope <SCOPE>',
      'machine: processes outside this container count as not seen; namespace: they cannot reach the device',
      choiceArgument('scope', ['machine', 'namespace']),
    )
    .action((options: AgentCommandOptions) => runHere(context, options));
};
