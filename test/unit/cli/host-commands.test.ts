/** The lines about hosts: what they send, and what people read. */
import { describe, expect, it } from 'vitest';
import type { AuditRecord } from '../../../src/core/audit.ts';
import type { HostView, InquiryView, MountView } from '../../../src/core/host-views.ts';
import type { Finding } from '../../../src/core/inquiry.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { clientView } from '../control/scripted-engine.ts';
import { device } from './command-line.ts';

const AT_MS = Date.UTC(2024, 4, 1, 12);
const COPY = { number: 2, name: 'copy' };
const TEXT = 'host web1 has copy mounted at /srv (ext4, read-write) from /dev/nbd0';

const mountView = (change: Partial<MountView> = {}): MountView => ({
  host: 'web1',
  volume: COPY,
  facts: [],
  reportedAtMs: AT_MS,
  changedAtMs: AT_MS,
  isLive: true,
  inUse: true,
  texts: [TEXT],
  ageMs: 65_000,
  ...change,
});
const hostView = (change: Partial<HostView> = {}): HostView => ({
  name: 'web1',
  grants: [{ volume: COPY, access: 'ro' }],
  certificates: ['ab'.repeat(32)],
  createdAtMs: AT_MS,
  agent: { host: 'web1', pid: 77, isPrivileged: true, transport: 'tls', connectedAtMs: AT_MS },
  mounts: [mountView()],
  clients: [clientView(4, { host: 'web1' })],
  ...change,
});
const finding = (kind: Finding['kind'], text: string): Finding => ({
  key: `${kind}:web1`,
  kind,
  volume: 2,
  host: 'web1',
  text,
  device: null,
  mountPoint: null,
  fileSystem: null,
  access: null,
  layers: [],
  processes: [],
  clients: [],
  identity: text,
});
const inquiryView = (findings: readonly Finding[]): InquiryView => ({
  inquiry: 9,
  volume: COPY,
  clear: findings.length === 0,
  hosts: ['web1', 'web2'],
  answers: [],
  findings,
  destroys: [],
  warnings: findings.map(({ text }) => text),
  tookMs: 12,
});

describe('hosts', () => {
  it('are listed with their agents, grants and uses, and shown in full', async () => {
    const silent = hostView({ name: 'web2', agent: null, grants: [], certificates: [], mounts: [], clients: [] });
    const { line } = await device({ hostList: async () => [hostView(), silent], hostShow: async () => hostView() });
    expect((await line('host list')).out).toBe(
      [
        'HOST  AGENT  RIGHTS  GRANTS   IN USE  CLIENTS',
        'web1  tls    root    copy:ro       1        1',
        'web2  none   -       -             0        0',
        '',
      ].join('\n'),
    );
    const { out } = await line('host show web1');
    expect(out).toMatch(/^agent +over tls, process 77 as root, since /m);
    expect(out).toMatch(/^grants +copy ro$/m);
    expect(out).toMatch(new RegExp(`^certificates +SHA-256 ${'ab'.repeat(32)}$`, 'm'));
    expect(out).toContain(TEXT);
    expect(JSON.parse((await line('host list --json')).out)).toHaveLength(2);
  });

  it('are added with a token that is shown once, and with what to do with it', async () => {
    const certificate = {
      certificateFile: '/s/ca/host-web1.crt',
      keyFile: '/s/ca/host-web1.key',
      authorityFile: '/s/ca/ca.crt',
      sha256: 'x',
      expiresAtMs: AT_MS,
    };
    const calls: object[] = [];
    const { line } = await device({
      hostAdd: async (input) => {
        calls.push(input);
        return { host: hostView(), token: 'secret-token', certificate: input.certificate === true ? certificate : null };
      },
    });
    expect((await line('host add web1')).out).toMatch(/^token secret-token$/m);
    const overTls = (await line('host add web1 --agent-tls')).out;
    expect(overTls).toContain('certificate /s/ca/host-web1.crt');
    expect(overTls).toContain('twinvol agent --host web1 --control tls:HOST:PORT');
    expect(calls).toEqual([{ name: 'web1' }, { name: 'web1', certificate: true }]);
  });

  it('that are removed leave a note of what they said last; grants that are not enforced say so', async () => {
    const calls: object[] = [];
    const { line } = await device({
      hostRemove: async () => hostView(),
      grant: async (input) => {
        calls.push(input);
        return hostView();
      },
      revoke: async (input) => {
        calls.push(input);
        return hostView();
      },
      settings: () => SETTINGS_DEFAULT,
    });
    expect(await line('host remove web1')).toMatchObject({
      exit: 0,
      out: 'host web1 removed; nobody asks it any more\n',
      err: `note: it said last: ${TEXT}\n`,
    });
    const granted = await line('grant copy web1 --ro');
    expect(granted.out).toBe('host web1 may use copy read-only\n');
    expect(granted.err).toContain('exports do not follow grants yet');
    expect((await line('revoke 2 web1')).out).toBe('host web1 may not use 2 any more\n');
    expect(calls).toEqual([
      { volume: 'copy', host: 'web1', access: 'ro' },
      { volume: 2, host: 'web1' },
    ]);
  });
});

describe('an inquiry', () => {
  it.each([
    [[], 0, 'nobody uses copy (asked web1, web2, 12 ms)'],
    [[finding('no-answer', 'host web1 did not say')], 12, '1 finding on copy'],
    [[finding('unknown', 'host web1 cannot rule out')], 12, '1 finding on copy'],
    [[finding('mounted', TEXT), finding('no-answer', 'host web1 did not say')], 11, '2 findings on copy'],
  ] as const)('of %j ends with %i', async (findings, exit, verdict) => {
    const { line } = await device({ inquiry: async () => inquiryView(findings) });
    const ran = await line('inquiry copy');
    expect(ran.exit).toBe(exit);
    expect(ran.out).toContain(verdict);
    for (const { text } of findings) expect(ran.out).toContain(`WARNING: ${text}`);
    expect(JSON.parse((await line('inquiry copy --json')).out)).toMatchObject({ clear: findings.length === 0 });
  });
});

it('the mount table shows what is in use with its age, and all of it on demand', async () => {
  const idle = mountView({ host: 'web2', inUse: false, isLive: false, texts: ['host web2 does not use copy'] });
  const { line } = await device({ mounts: () => [mountView(), idle] });
  const { out } = await line('mounts');
  expect(out).toMatch(/^web1 +copy +1:05 .* connected +host web1 has copy mounted/m);
  expect(out).not.toContain('web2');
  expect((await line('mounts --all')).out).toMatch(/^web2 .* gone +host web2 does not use copy$/m);
});

it('the audit record is read page by page, and each kind of record has its line', async () => {
  const records: readonly AuditRecord[] = [
    { seq: 1, atMs: AT_MS, kind: 'inquiry', command: 'pair resync db', volumes: [COPY], volumeCount: 1, hosts: ['web1'] },
    {
      seq: 2,
      atMs: AT_MS,
      kind: 'answer',
      inquiry: 1,
      host: 'web1',
      volumes: [COPY],
      volumeCount: 1,
      outcome: 'answered',
      reason: null,
      texts: [TEXT],
      afterMs: 7,
    },
    {
      seq: 3,
      atMs: AT_MS,
      kind: 'answer',
      inquiry: 1,
      host: 'web2',
      volumes: [COPY],
      volumeCount: 7,
      outcome: 'no-answer',
      reason: 'deadline',
      texts: ['late'],
      afterMs: null,
    },
    {
      ...{ seq: 4, atMs: AT_MS, kind: 'decision', inquiry: 1, command: 'pair resync db', decision: 'overridden', code: null, token: 't' },
      ...{ findings: [{ key: 'mounted:web1', text: TEXT }], destroys: [], reason: 'test', by: 'op' },
    },
    { seq: 5, atMs: AT_MS, kind: 'override', inquiry: 1, key: 'mounted:web1', findings: [TEXT], reason: 'test', by: 'op' },
    { seq: 6, atMs: AT_MS, kind: 'outcome', inquiry: 1, done: false, code: 'STORE_IO' },
    { seq: 7, atMs: AT_MS, kind: 'host', change: 'granted', host: 'web1', volume: COPY, access: 'ro', text: null },
  ];
  const many = Array.from(
    { length: 12_500 },
    (_, index): AuditRecord => ({ seq: index + 1, atMs: AT_MS, kind: 'outcome', inquiry: 1, done: true, code: null }),
  );
  let all = records;
  const asked: object[] = [];
  const { line } = await device({
    audit: async (input = {}) => {
      asked.push(input);
      const { since = 0, limit = 10 } = input;
      return all.filter(({ seq }) => seq > since).slice(0, limit);
    },
  });
  const { out } = await line('audit');
  for (const part of [
    'pair resync db: asks web1 about copy',
    `#1 web1, copy: answered after 7 ms: ${TEXT}`,
    '#1 web2, copy and 6 more: no answer (deadline): late',
    '#1 pair resync db: overridden by op [mounted:web1], because: test',
    `#1 mounted:web1 overridden by op: ${TEXT}`,
    '#1 failed: STORE_IO',
    'web1 granted copy ro',
  ])
    expect(out).toContain(part);
  all = many;
  expect(JSON.parse((await line('audit --since 100 --json')).out)).toHaveLength(12_400);
  expect(asked.slice(1)).toEqual([
    { since: 100, limit: 5000 },
    { since: 5100, limit: 5000 },
    { since: 10_100, limit: 5000 },
  ]);
});
