/** `twinvol host add|list|show|remove|trust`, `grant`, `revoke`: hosts, what proves them, and what they may use. */
import type { Command } from 'commander';
import type { CertificateView, HostView } from '../../core/host-views.ts';
import { TwinvolError } from '../../core/faults.ts';
import type { VolumeRef } from '../../engine/api.ts';
import { readPrivateFile } from '../../platform/private-file.ts';
import { volumeArgument } from '../arguments.ts';
import { addCommand, addGroup, withPlan } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { formatMoment } from '../duration.ts';
import { isPlan, planText } from '../plan-text.ts';
import type { Column } from '../text-table.ts';
import { textFields, textTable } from '../text-table.ts';

type Plan = { readonly plan?: boolean };

const agentText = ({ agent }: HostView): string => {
  if (agent === null) return 'none connected: an inquiry is not answered';
  const rights = agent.isPrivileged ? 'as root' : 'without root: it cannot see everything';
  return `over ${agent.transport}, process ${agent.pid} ${rights}, since ${formatMoment(agent.connectedAtMs)}`;
};

const COLUMNS: readonly Column<HostView>[] = [
  { heading: 'HOST', text: ({ name }) => name },
  {
    heading: 'AGENT',
    text: ({ agent }) => (agent === null ? 'none' : agent.transport),
    colour: ({ agent }) => (agent === null ? 'yellow' : null),
  },
  { heading: 'RIGHTS', text: ({ agent }) => (agent === null ? '' : agent.isPrivileged ? 'root' : 'user') },
  { heading: 'GRANTS', text: ({ grants }) => grants.map(({ volume, access }) => `${volume.name}:${access}`).join(' ') },
  { heading: 'IN USE', align: 'right', text: ({ mounts }) => String(mounts.length) },
  { heading: 'CLIENTS', align: 'right', text: ({ clients }) => String(clients.length) },
];

const fieldsOf = (host: HostView): Array<readonly [string, string]> => [
  ['host', host.name],
  ['agent', agentText(host)],
  ['enrolled', formatMoment(host.createdAtMs)],
  ...(host.certificates.length === 0 ? [['certificates', 'none'] as const] : []),
  ...host.certificates.map((sha256, index) => [index === 0 ? 'certificates' : '', `SHA-256 ${sha256}`] as const),
  ...(host.grants.length === 0 ? [['grants', 'none'] as const] : []),
  ...host.grants.map(({ volume, access }, index) => [index === 0 ? 'grants' : '', `${volume.name} ${access}`] as const),
  ...host.mounts.flatMap(({ texts }) => texts).map((text, index) => [index === 0 ? 'said last' : '', text] as const),
  ...host.clients.map(({ id, volume }, index) => [index === 0 ? 'clients' : '', `${id} ${volume?.name ?? ''}`] as const),
];

/** Where the files of a certificate are, and what to do with them. */
export const certificateLines = (
  host: string,
  { certificateFile, keyFile, authorityFile, expiresAtMs }: CertificateView,
): readonly string[] => [
  `certificate ${certificateFile}`,
  `key         ${keyFile}`,
  `authority   ${authorityFile}`,
  `copy these three to ${host} (the key in secret); they are good until ${formatMoment(expiresAtMs)}`,
];

const addHost = async (context: CommandContext, name: string, { agentTls, plan }: Plan & { agentTls?: boolean }): Promise<void> => {
  const added = await context.call('host.add', {
    name,
    ...(agentTls === true ? { certificate: true } : {}),
    ...(plan === true ? { plan } : {}),
  });
  context.print(added, () => {
    if (isPlan(added)) return planText(added, context.paint);
    const lines = [
      `host ${name} added`,
      `token ${added.token}`,
      'the token is shown this once: put it into a file that only the agent reads (mode 0600), and there run',
      `  twinvol agent --host ${name} --token-file FILE --control unix:PATH`,
    ];
    if (added.certificate === null) return lines.join('\n');
    const overTls = `  twinvol agent --host ${name} --control tls:HOST:PORT --tls-cert FILE --tls-key FILE --tls-ca FILE`;
    return [...lines, ...certificateLines(name, added.certificate), 'and there run, without the token', overTls].join('\n');
  });
};

const removeHost = async (context: CommandContext, name: string, plan: Plan): Promise<void> => {
  const removed = await context.call('host.remove', { name, ...plan });
  if (!isPlan(removed)) {
    for (const text of removed.mounts.flatMap(({ texts }) => texts))
      context.note(`${context.paintError('yellow', 'note:')} it said last: ${text}`);
  }
  context.print(removed, () => (isPlan(removed) ? planText(removed, context.paint) : `host ${name} removed; nobody asks it any more`));
};

/** @throws TwinvolError `USAGE` for a file that is not there */
const certificateOf = (path: string): string => {
  const text = readPrivateFile(path);
  if (text === null) throw new TwinvolError('USAGE', `the certificate ${path} does not exist`, { remedy: 'name a PEM file' });
  return text;
};

export const registerHost = (program: Command, context: CommandContext): void => {
  const host = addGroup(program, 'host', 'hosts: who may use volumes, and is asked before one is overwritten');
  withPlan(
    addCommand(host, 'add', 'make a host known; shows the enrolment token of its agent, once', [
      'host add web1',
      'host add web1 --agent-tls',
    ]),
  )
    .argument('<NAME>', "the host's name")
    .option('--agent-tls', "issue a certificate of the device's own authority, for TLS")
    .action((name: string, options: Plan & { agentTls?: boolean }) => addHost(context, name, options));
  addCommand(host, 'list', 'all hosts', ['host list', 'host list --json']).action(async () => {
    const hosts = await context.call('host.list', {});
    context.print(hosts, () => textTable(hosts, COLUMNS, context.paint, 'no hosts; twinvol host add NAME makes one known'));
  });
  addCommand(host, 'show', 'one host in full', ['host show web1'])
    .argument('<NAME>', "the host's name")
    .action(async (name: string) => {
      const shown = await context.call('host.show', { name });
      context.print(shown, () => textFields(fieldsOf(shown), context.paint));
    });
  withPlan(addCommand(host, 'remove', 'forget a host: it is not asked any more', ['host remove web1 --plan', 'host remove web1']))
    .argument('<NAME>', "the host's name")
    .action((name: string, plan: Plan) => removeHost(context, name, plan));
  addCommand(host, 'trust', 'let a certificate of your own authority prove a host', [
    'host trust web1 /etc/ssl/web1.pem',
    'host trust web1 new.pem --replace',
  ])
    .argument('<NAME>', "the host's name, which the certificate has to carry")
    .argument('<FILE>', 'the certificate (PEM)')
    .option('--replace', 'the certificates of before prove nothing any more')
    .action(async (name: string, path: string, options: { replace?: boolean }) => {
      const trusted = await context.call('host.trust', { name, certificatePem: certificateOf(path), ...options });
      context.print(trusted, () => `host ${name} is proved by ${trusted.host.certificates.length} certificates`);
    });
};

export const registerGrant = (program: Command, context: CommandContext): void => {
  withPlan(addCommand(program, 'grant', 'let a host use a volume', ['grant db web1', 'grant db-copy backup --ro']))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .argument('<HOST>', "the host's name")
    .option('--ro', 'read-only')
    .action(async (volume: VolumeRef, host: string, { ro, ...plan }: Plan & { ro?: boolean }) => {
      const granted = await context.call('host.grant', { volume, host, access: ro === true ? 'ro' : 'rw', ...plan });
      context.print(granted, () => {
        if (isPlan(granted)) return planText(granted, context.paint);
        return `host ${host} may use ${volume} ${ro === true ? 'read-only' : 'read-write'}`;
      });
      if (!isPlan(granted)) await noteUnenforced(context);
    });
};

export const registerRevoke = (program: Command, context: CommandContext): void => {
  withPlan(addCommand(program, 'revoke', 'take a grant away; its connections end where exports follow grants', ['revoke db web1']))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .argument('<HOST>', "the host's name")
    .action(async (volume: VolumeRef, host: string, plan: Plan) => {
      const revoked = await context.call('host.revoke', { volume, host, ...plan });
      context.print(revoked, () => (isPlan(revoked) ? planText(revoked, context.paint) : `host ${host} may not use ${volume} any more`));
      if (!isPlan(revoked)) await noteUnenforced(context);
    });
};

const noteUnenforced = async (context: CommandContext): Promise<void> => {
  const { exportsFollowGrants } = await context.call('settings.show', {});
  if (!exportsFollowGrants) {
    context.note('exports do not follow grants yet, so every caller reaches every volume: twinvol settings set exportsFollowGrants=on');
  }
};
