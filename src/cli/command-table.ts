/**
 * The commands, with what loads them. The top-level help needs only this table; a command's own code is loaded when the
 * command line names it, so that every command starts quickly.
 */
import type { Command } from 'commander';
import type { CommandContext } from './command-context.ts';

export type Register = (program: Command, context: CommandContext) => void;

export type CommandEntry = {
  readonly name: string;
  /** For the top-level help. */
  readonly summary: string;
  readonly heading: string;
  readonly isHidden?: boolean;
  readonly load: () => Promise<Register>;
};

const DEVICE = 'Device:';
const VOLUMES = 'Volumes and pairs:';
const HOSTS = 'Hosts and who uses what:';
const WATCH = 'Watching:';
const TESTS = 'Tests and help:';
const ALIASES = 'For scripts of other systems (see each one with --help):';

const alias = (name: string, summary: string): CommandEntry => ({
  name,
  summary,
  heading: ALIASES,
  load: async () => (await import('./commands/pair-aliases.ts')).registerAlias(name),
});

export const COMMAND_TABLE: readonly CommandEntry[] = [
  { name: 'init', summary: 'make a store', heading: DEVICE, load: async () => (await import('./serve-command.ts')).registerInit },
  {
    name: 'serve',
    summary: 'run the engine of a store',
    heading: DEVICE,
    load: async () => (await import('./serve-command.ts')).registerServe,
  },
  { name: 'store', summary: 'check a store', heading: DEVICE, load: async () => (await import('./serve-command.ts')).registerStore },
  {
    name: 'settings',
    summary: "show or change the device's settings",
    heading: DEVICE,
    load: async () => (await import('./commands/device.ts')).registerSettings,
  },
  {
    name: 'volume',
    summary: 'make, list, change and delete volumes',
    heading: VOLUMES,
    load: async () => (await import('./commands/volume.ts')).registerVolume,
  },
  { name: 'uri', summary: "a volume's NBD URI", heading: VOLUMES, load: async () => (await import('./commands/volume.ts')).registerUri },
  {
    name: 'pair',
    summary: 'form, split, resync, restore, release and watch pairs',
    heading: VOLUMES,
    load: async () => (await import('./commands/pair.ts')).registerPair,
  },
  {
    name: 'pool',
    summary: 'the pool of volumes that can become secondaries',
    heading: VOLUMES,
    load: async () => (await import('./commands/pool.ts')).registerPool,
  },
  {
    name: 'group',
    summary: 'consistency groups of pairs',
    heading: VOLUMES,
    load: async () => (await import('./commands/group.ts')).registerGroup,
  },
  {
    name: 'apply',
    summary: 'make the device what a declaration says',
    heading: VOLUMES,
    load: async () => (await import('./commands/apply.ts')).registerApply,
  },
  {
    name: 'host',
    summary: 'hosts that may use volumes',
    heading: HOSTS,
    load: async () => (await import('./commands/host.ts')).registerHost,
  },
  {
    name: 'grant',
    summary: 'let a host use a volume',
    heading: HOSTS,
    load: async () => (await import('./commands/host.ts')).registerGrant,
  },
  { name: 'revoke', summary: 'take a grant away', heading: HOSTS, load: async () => (await import('./commands/host.ts')).registerRevoke },
  {
    name: 'agent',
    summary: 'run on a host: answers whether it uses a volume',
    heading: HOSTS,
    load: async () => (await import('./commands/agent.ts')).registerAgent,
  },
  {
    name: 'ca',
    summary: "the device's own certificates",
    heading: HOSTS,
    load: async () => (await import('./commands/certificate.ts')).registerCertificates,
  },
  {
    name: 'inquiry',
    summary: 'ask who uses a volume, now',
    heading: HOSTS,
    load: async () => (await import('./commands/inquiry.ts')).registerInquiry,
  },
  {
    name: 'mounts',
    summary: 'what the hosts said last',
    heading: HOSTS,
    load: async () => (await import('./commands/inquiry.ts')).registerMounts,
  },
  {
    name: 'audit',
    summary: 'what was asked and decided',
    heading: HOSTS,
    load: async () => (await import('./commands/inquiry.ts')).registerAudit,
  },
  {
    name: 'status',
    summary: 'the device at a glance',
    heading: WATCH,
    load: async () => (await import('./commands/device.ts')).registerStatus,
  },
  {
    name: 'events',
    summary: 'what is there and what changes',
    heading: WATCH,
    load: async () => (await import('./commands/events.ts')).registerEvents,
  },
  {
    name: 'client',
    summary: 'list and end NBD connections',
    heading: WATCH,
    load: async () => (await import('./commands/device.ts')).registerClient,
  },
  {
    name: 'bench',
    summary: 'load any NBD export and measure it',
    heading: TESTS,
    load: async () => (await import('./commands/bench.ts')).registerBench,
  },
  {
    name: 'fault',
    summary: 'make test volumes misbehave on purpose',
    heading: TESTS,
    load: async () => (await import('./commands/fault.ts')).registerFault,
  },
  {
    name: 'explain',
    summary: 'what an error code means',
    heading: TESTS,
    load: async () => (await import('./commands/device.ts')).registerExplain,
  },
  {
    name: 'completion',
    summary: 'completion for bash, zsh or fish',
    heading: TESTS,
    load: async () => (await import('./commands/completion.ts')).registerCompletion,
  },
  {
    name: '__complete',
    summary: 'what could come next',
    heading: TESTS,
    isHidden: true,
    load: async () => (await import('./commands/completion.ts')).registerComplete,
  },
  alias('paircreate', 'form a pair'),
  alias('pairsplit', 'split or release pairs'),
  alias('pairresync', 'resync or restore pairs'),
  alias('pairdisplay', 'show pairs'),
  alias('pairvolchk', "a volume's pair state as an exit status"),
  alias('pairevtwait', 'wait for a pair state'),
];

/** Registers what the words may mean in full, and the rest by name only. All in full: for completion. */
export const registerCommands = async (program: Command, context: CommandContext, words: readonly string[] | 'all'): Promise<void> => {
  for (const { name, summary, heading, isHidden, load } of COMMAND_TABLE) {
    if (words === 'all' ? isHidden !== true : words.includes(name)) (await load())(program, context);
    else program.command(name, { hidden: isHidden === true }).description(summary);
    program.commands.at(-1)?.helpGroup(heading);
  }
};
