/** `twinvol inquiry`, `mounts`, `audit`: who uses which volume, and what was asked and decided about it. */
import type { Command } from 'commander';
import type { AuditInquiry, AuditRecord } from '../../core/audit.ts';
import { EXIT } from '../../core/faults.ts';
import type { InquiryView, MountView } from '../../core/host-views.ts';
import { printable } from '../../core/inquiry-text.ts';
import type { VolumeRef } from '../../engine/api.ts';
import { numberArgument, volumeArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { formatDuration, formatMoment } from '../duration.ts';
import { given } from '../given.ts';
import type { Column } from '../text-table.ts';
import { textTable } from '../text-table.ts';

const inquiryText = (inquiry: InquiryView, context: CommandContext): string => {
  const { volume, hosts, findings, warnings, clear, tookMs } = inquiry;
  const asked = hosts.length === 0 ? 'no hosts to ask' : `asked ${hosts.join(', ')}`;
  const lines = warnings.map((text) => `${context.paint('yellow', 'WARNING:')} ${printable(text)}`);
  const verdict = clear
    ? `nobody uses ${volume.name}`
    : `${findings.length} ${findings.length === 1 ? 'finding' : 'findings'} on ${volume.name}`;
  return [...lines, `${verdict} (${asked}, ${tookMs} ms)`].join('\n');
};

/** 0: nobody uses it; 11: somebody does; 12: somebody may, who did not say. */
const exitOf = ({ clear, findings }: InquiryView): number => {
  if (clear) return EXIT.done;
  return findings.some(({ kind }) => kind !== 'no-answer' && kind !== 'unknown') ? EXIT.mounted : EXIT.noAnswer;
};

export const registerInquiry = (program: Command, context: CommandContext): void => {
  addCommand(program, 'inquiry', 'ask every host now whether it uses a volume; changes nothing (exit status 11: in use, 12: no answer)', [
    'inquiry db-copy',
    'inquiry db-copy --json',
  ])
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .action(async (volume: VolumeRef) => {
      const inquiry = await context.call('inquiry.ask', { volume });
      context.print(inquiry, () => inquiryText(inquiry, context));
      context.exitStatus = exitOf(inquiry);
    });
};

const MOUNT_COLUMNS: readonly Column<MountView>[] = [
  { heading: 'HOST', text: ({ host }) => host },
  { heading: 'VOLUME', text: ({ volume }) => volume.name },
  { heading: 'AGE', align: 'right', text: ({ ageMs }) => formatDuration(ageMs) },
  { heading: 'SINCE', text: ({ changedAtMs }) => formatMoment(changedAtMs) },
  { heading: 'AGENT', text: ({ isLive }) => (isLive ? 'connected' : 'gone'), colour: ({ isLive }) => (isLive ? null : 'yellow') },
  { heading: 'WHAT IT SAID', text: ({ texts }) => texts.join('; ') },
];

export const registerMounts = (program: Command, context: CommandContext): void => {
  addCommand(program, 'mounts', 'what the hosts said last that they use, with its age; an inquiry asks anew', [
    'mounts',
    'mounts db-copy',
    'mounts --all',
  ])
    .argument('[VOLUME]', 'name or number', volumeArgument)
    .option('--all', 'also the volumes that a host says it does not use')
    .action(async (volume: VolumeRef | undefined, { all }: { all?: boolean }) => {
      const mounts = await context.call('inquiry.mounts', given({ volume }));
      const shown = all === true ? mounts : mounts.filter(({ inUse }) => inUse);
      context.print(shown, () => textTable(shown, MOUNT_COLUMNS, context.paint, 'no host says that it uses a volume'));
    });
};

const NAMES_SHOWN = 5;
const namesOf = ({ volumes, volumeCount }: Pick<AuditInquiry, 'volumes' | 'volumeCount'>): string => {
  const names = volumes.slice(0, NAMES_SHOWN).map(({ name }) => name);
  return volumeCount > names.length ? `${names.join(', ')} and ${volumeCount - names.length} more` : names.join(', ');
};

const auditText = (record: AuditRecord): string => {
  switch (record.kind) {
    case 'inquiry':
      return `${record.command}: asks ${record.hosts.length === 0 ? 'nobody' : record.hosts.join(', ')} about ${namesOf(record)}`;
    case 'answer': {
      const how = record.outcome === 'answered' ? `answered after ${record.afterMs ?? 0} ms` : `no answer (${record.reason ?? 'unknown'})`;
      return `#${record.inquiry} ${record.host}, ${namesOf(record)}: ${how}: ${record.texts.join('; ')}`;
    }
    case 'decision': {
      const code = record.code === null ? '' : ` ${record.code}`;
      const by = record.by === null ? '' : ` by ${record.by}`;
      const reason = record.reason === null ? '' : `, because: ${record.reason}`;
      const found = record.findings.length === 0 ? '' : ` [${record.findings.map(({ key }) => key).join(' ')}]`;
      return `#${record.inquiry} ${record.command}: ${record.decision}${code}${by}${found}${reason}`;
    }
    case 'override':
      return `#${record.inquiry} ${record.key} overridden${record.by === null ? '' : ` by ${record.by}`}: ${record.findings.join('; ')}`;
    case 'outcome':
      return `#${record.inquiry} ${record.done ? 'carried out' : `failed: ${record.code ?? 'unknown'}`}`;
    case 'host': {
      const parts = [record.host ?? 'all hosts', record.change, record.volume?.name, record.access, record.text];
      return parts.filter((part) => part !== null && part !== undefined).join(' ');
    }
  }
};

const AUDIT_COLUMNS: readonly Column<AuditRecord>[] = [
  { heading: 'NUMBER', align: 'right', text: ({ seq }) => String(seq) },
  { heading: 'WHEN', text: ({ atMs }) => formatMoment(atMs) },
  { heading: 'KIND', text: ({ kind }) => kind },
  { heading: 'WHAT', text: auditText },
];

const AUDIT_PAGE = 5000;

/** All records after a number, page by page. */
const auditAfter = async (context: CommandContext, first: number): Promise<readonly AuditRecord[]> => {
  const records: AuditRecord[] = [];
  for (let since = first; ; ) {
    const page = await context.call('inquiry.audit', { since, limit: AUDIT_PAGE });
    records.push(...page);
    if (page.length < AUDIT_PAGE) return records;
    since = page.at(-1)?.seq ?? since;
  }
};

export const registerAudit = (program: Command, context: CommandContext): void => {
  addCommand(program, 'audit', 'the audit record: inquiries, answers, decisions, overrides, outcomes', [
    'audit',
    'audit --since 120 --json',
  ])
    .option('--since <NUMBER>', 'records after this number', numberArgument('number of a record', 0, Number.MAX_SAFE_INTEGER))
    .action(async ({ since = 0 }: { since?: number }) => {
      const records = await auditAfter(context, since);
      context.print(records, () => textTable(records, AUDIT_COLUMNS, context.paint, 'no records'));
    });
};
