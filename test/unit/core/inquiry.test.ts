import { describe, expect, it } from 'vitest';
import type { LiveConnection, VerdictInput } from '../../../src/core/inquiry.ts';
import { verdictOf } from '../../../src/core/inquiry.ts';
import { destructionText, printable, warningLines } from '../../../src/core/inquiry-text.ts';
import type { HostAnswer, HostFact, InquiryTarget, MountedFact, OpenFact } from '../../../src/core/mount-facts.ts';
import { factsOf, tcpConnectionRef, unixConnectionRef } from '../../../src/core/mount-facts.ts';

const TARGET: InquiryTarget = { volume: 1, name: 'r1', uris: [] };
const CLEAN: HostFact = { kind: 'not-mounted' };
const MOUNTED: MountedFact = {
  kind: 'mounted',
  device: '/dev/loop0',
  mountPoint: '/srv/data',
  fileSystem: 'ext4',
  access: 'rw',
  layers: [
    { kind: 'connection', name: 'nbdfuse (pid 12)' },
    { kind: 'fuse', name: '/mnt/nbd' },
    { kind: 'loop', name: '/dev/loop0' },
  ],
  namespace: null,
  connections: ['unix:5'],
};
const OPEN: OpenFact = { kind: 'open', device: 'nbd://h/r1', layers: [], processes: [{ name: 'qemu-io', pid: 44 }], connections: [] };

const says = (host: string, ...facts: HostFact[]): HostAnswer => ({ host, volume: 1, outcome: 'answered', facts, afterMs: 3 });
const silent = (host: string): HostAnswer => ({
  host,
  volume: 1,
  outcome: 'no-answer',
  reason: 'deadline',
  text: 'no answer within 3000 ms',
});
const live = (id: number, more: Partial<LiveConnection> = {}): LiveConnection => ({
  id,
  volume: 1,
  host: null,
  peer: 'unix',
  refs: [],
  ...more,
});
const verdict = (hosts: readonly string[], answers: readonly HostAnswer[], connections: readonly LiveConnection[] = []) => {
  const input: VerdictInput = { targets: [TARGET], asked: hosts.map((host) => ({ host, volumes: [1] })), answers, connections };
  return verdictOf(input);
};
const keys = (result: ReturnType<typeof verdictOf>): string[] => result.findings.map((finding) => finding.key);

describe('the verdict', () => {
  it('is clear when every host says that it does not use the volume, or there is none', () => {
    expect(verdict(['a', 'b'], [says('a', CLEAN), says('b', CLEAN)])).toEqual({ findings: [], clear: true });
    expect(verdict([], []).clear).toBe(true);
  });

  it('names host, mount point, file system and layers of a mount', () => {
    const [finding] = verdict(['a'], [says('a', MOUNTED)]).findings;
    expect(finding).toMatchObject({
      key: 'mounted:a',
      kind: 'mounted',
      host: 'a',
      mountPoint: '/srv/data',
      fileSystem: 'ext4',
      access: 'rw',
      device: '/dev/loop0',
    });
    expect(finding?.text).toBe(
      'host a has r1 mounted at /srv/data (ext4, read-write) from loop device /dev/loop0, through NBD connection of nbdfuse (pid 12), FUSE mount /mnt/nbd',
    );
  });

  it('names the processes that have it open', () => {
    const [finding] = verdict(['a'], [says('a', OPEN)]).findings;
    expect(finding).toMatchObject({ key: 'open:a', processes: [{ name: 'qemu-io', pid: 44 }] });
    expect(finding?.text).toBe('host a has r1 open: qemu-io (pid 44) holds nbd://h/r1');
  });

  it('takes silence, doubt and a host that nobody asked as findings', () => {
    const doubt: HostFact = { kind: 'unknown', what: 'the block devices', why: '/sys/block could not be read', connections: [] };
    const result = verdict(['a', 'b', 'c'], [silent('a'), says('b', doubt)]);
    expect(result.clear).toBe(false);
    expect(keys(result)).toEqual(['unknown:b', 'no-answer:a', 'no-answer:c']);
    expect(result.findings.map((finding) => finding.text)).toEqual([
      'host b cannot rule out that it uses r1: it could not see the block devices (/sys/block could not be read)',
      'host a did not say whether it uses r1: no answer within 3000 ms',
      'host c did not say whether it uses r1: it was not asked',
    ]);
  });

  it('takes an answer without facts as none', () => {
    expect(keys(verdict(['a'], [says('a')]))).toEqual(['no-answer:a']);
  });

  it('finds a connection of nobody known', () => {
    const result = verdict([], [], [live(7, { peer: '10.0.0.9:999' })]);
    expect(result.findings).toMatchObject([
      { key: 'client:7', host: null, clients: [7], text: 'NBD connection 7 (10.0.0.9:999) to r1 is open, of no known host' },
    ]);
  });

  it('believes a live connection more than the host that denies it', () => {
    const result = verdict(['a'], [says('a', CLEAN)], [live(7, { host: 'a' })]);
    expect(keys(result)).toEqual(['client:7']);
    expect(result.findings[0]?.text).toBe(
      'NBD connection 7 (unix) to r1 is open, of host a, although that host says that it does not use the volume',
    );
  });

  it('joins a connection with the use that its host names it for', () => {
    const result = verdict(['a'], [says('a', MOUNTED)], [live(7, { refs: ['unix:5'] }), live(8, { refs: ['unix:6'] })]);
    expect(keys(result)).toEqual(['mounted:a', 'client:8']);
    expect(result.findings[0]?.clients).toEqual([7]);
  });

  it("does not let a host explain another host's connection away", () => {
    const result = verdict(['a'], [says('a', MOUNTED)], [live(7, { refs: ['unix:5'], host: 'b' })]);
    expect(keys(result)).toEqual(['mounted:a', 'client:7']);
  });

  it('settles a doubt about a connection that the device knows', () => {
    const doubt: HostFact = { kind: 'unknown', what: 'the export that node (pid 9) is connected to', why: 'x', connections: ['unix:5'] };
    const toOther = live(7, { refs: ['unix:5'], volume: 2 });
    expect(verdict(['a'], [says('a', doubt)], [toOther]).clear).toBe(true);
    expect(keys(verdict(['a'], [says('a', doubt)], [{ ...toOther, volume: null }]))).toEqual(['unknown:a']);
    expect(keys(verdict(['a'], [says('a', doubt)], []))).toEqual(['unknown:a']);
    expect(keys(verdict(['a'], [says('a', doubt)], [{ ...toOther, host: 'b' }]))).toEqual(['unknown:a']);
    const toTarget = verdict(['a'], [says('a', doubt)], [live(7, { refs: ['unix:5'] })]);
    expect(toTarget.findings).toMatchObject([{ key: 'client:7', host: 'a' }]);
    expect(toTarget.findings[0]?.text).toContain('the export that node (pid 9) is connected to on host a');
  });

  it('does not settle a doubt about the host as a whole by any connection', () => {
    const doubt: HostFact = { kind: 'unknown', what: 'x', why: 'y', connections: [] };
    expect(keys(verdict(['a'], [says('a', doubt)], [live(7, { volume: 2 })]))).toEqual(['unknown:a']);
  });

  it('is the same in whatever order the answers come', () => {
    const answers = [says('b', OPEN, MOUNTED), silent('c'), says('a', CLEAN)];
    const connections = [live(9), live(3)];
    const one = verdict(['a', 'b', 'c'], answers, connections);
    expect(verdict(['c', 'a', 'b'], answers.toReversed(), connections.toReversed())).toEqual(one);
    expect(keys(one)).toEqual(['mounted:b', 'open:b', 'client:3', 'client:9', 'no-answer:c']);
  });

  it('speaks of several volumes in the order of the targets', () => {
    const result = verdictOf({
      targets: [{ volume: 2, name: 'r2', uris: [] }, TARGET],
      asked: [{ host: 'a', volumes: [1, 2] }],
      answers: [says('a', OPEN), { host: 'a', volume: 2, outcome: 'no-answer', reason: 'garbage', text: 'x' }],
      connections: [],
    });
    expect(result.findings.map((finding) => `${finding.volume} ${finding.key}`)).toEqual(['2 no-answer:a', '1 open:a']);
  });
});

describe('the words of a warning', () => {
  it('let nothing of another machine reach the terminal as a control', () => {
    expect(printable('a\u001b[31mb\n\u202ec')).toBe('a\\u{1b}[31mb\\u{a}\\u{202e}c');
    expect(printable('x'.repeat(2000))).toHaveLength(515);
    const [finding] = verdict(['a'], [says('a', { ...MOUNTED, mountPoint: '/a\u001b]0;x\u0007' })]).findings;
    expect(finding?.text).not.toContain('\u001b');
  });

  it('say what would be destroyed', () => {
    const destruction = {
      volumeName: 'r1',
      regions: 3,
      bytes: 3 * 65536,
      firstAtMs: Date.UTC(2026, 0, 2),
      lastAtMs: null,
      since: 'since the split',
    };
    expect(destructionText(destruction)).toBe(
      'going on destroys what was written on r1 since the split: 192 KiB in 3 regions, first at 2026-01-02T00:00:00Z',
    );
    const whole = { ...destruction, firstAtMs: null, since: 'since it was created', isAtMost: true };
    expect(destructionText(whole)).toBe('going on destroys what was written on r1 since it was created: up to 192 KiB in 3 regions');
    expect(destructionText({ ...destruction, bytes: 0 })).toBe('nothing was written on r1 since the split');
    expect(warningLines([{ text: 'x' }], [destruction])).toHaveLength(2);
    expect(warningLines([], [destruction])).toEqual([]);
  });

  it('name a swap device, another namespace and a long list of processes', () => {
    const swap: HostFact = { ...MOUNTED, mountPoint: '[swap]', fileSystem: 'swap', layers: [{ kind: 'swap', name: '/dev/loop0' }] };
    const inside: HostFact = { ...MOUNTED, namespace: 'sleep (pid 9)', layers: [] };
    const crowd: HostFact = { ...OPEN, processes: Array.from({ length: 10 }, (_, index) => ({ name: 'p', pid: index })) };
    expect(verdict(['a'], [says('a', swap, inside, crowd)]).findings.map((finding) => finding.text)).toEqual([
      'host a has r1 mounted at /srv/data (ext4, read-write) from /dev/loop0, in the mount namespace of sleep (pid 9)',
      'host a swaps to r1: swap space /dev/loop0',
      'host a has r1 open: the kernel, p (pid 1), p (pid 2), p (pid 3), p (pid 4), p (pid 5), p (pid 6), p (pid 7) and 2 more hold nbd://h/r1',
    ]);
  });
});

describe('the name of a connection', () => {
  it('is the same whichever end gives it', () => {
    expect(tcpConnectionRef('::ffff:10.0.0.7', 5)).toBe(tcpConnectionRef('10.0.0.7', 5));
    expect(tcpConnectionRef('FE80::1%eth0', 5)).toBe('tcp:[fe80::1]:5');
    expect(unixConnectionRef(7)).toBe('unix:7');
  });
});

describe('the facts of a host', () => {
  it('are "not mounted" only when nothing was found and everything was seen', () => {
    expect(factsOf([], [])).toEqual([CLEAN]);
    expect(factsOf([], [{ kind: 'unknown', what: 'x', why: 'y', connections: [] }])).toHaveLength(1);
  });

  it('stay within the limit, and say that there are more', () => {
    const facts = factsOf(
      Array.from({ length: 300 }, () => OPEN),
      [],
    );
    expect(facts).toHaveLength(256);
    expect(facts.at(-1)).toMatchObject({ kind: 'unknown', what: '45 more findings' });
  });
});
