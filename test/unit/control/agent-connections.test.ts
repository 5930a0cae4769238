/** Who may be an agent of the device, how one comes back, what it reports by itself, and how a certificate proves a host. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { AgentControl } from '../../../src/agent/agent.ts';
import { runAgent } from '../../../src/agent/agent.ts';
import { CertificateAuthority } from '../../../src/control/certificate-authority.ts';
import { SILENT_LOG } from '../../../src/control/control-log.ts';
import { InquiryService } from '../../../src/control/inquiry-service.ts';
import type { MountChange } from '../../../src/control/mount-table.ts';
import { capturedHost } from '../../support/captured-host.ts';
import {
  asked,
  type Device,
  eventually,
  facts,
  FakeAgent,
  NOT_MOUNTED,
  rowOf,
  shortly,
  startAgent,
  startDevice,
  TARGET,
  unix,
} from '../../support/inquiry-rig.ts';

describe('who may be an agent', () => {
  const refusals = (device: Device): string[] => {
    const reasons: string[] = [];
    device.service.on('refused', (_peer, host, reason) => reasons.push(`${host ?? '-'}: ${reason}`));
    return reasons;
  };

  it.each([
    [
      'an unknown host',
      { type: 'hello', version: 1, host: 'x', token: 'token-x', pid: 1, isPrivileged: false },
      'x: no host of that name is enrolled',
    ],
    [
      'a wrong token',
      { type: 'hello', version: 1, host: 'a', token: 'guess', pid: 1, isPrivileged: false },
      'a: its enrolment token is wrong',
    ],
    ['no token', { type: 'hello', version: 1, host: 'a', pid: 1, isPrivileged: false }, 'a: it gave no enrolment token'],
    [
      'another version',
      { type: 'hello', version: 9, host: 'a', token: 'token-a', pid: 1, isPrivileged: false },
      'a: its protocol version 9 is not 1',
    ],
    ['an answer before the hello', { type: 'answer', id: 'x', findings: [] }, '-: its first message was no hello'],
    ['nonsense', '\u0000\u0001 nonsense\n', '-: its first message was no hello'],
  ])('not one with %s', async (_, first, reason) => {
    await using device = await startDevice(['a']);
    const reasons = refusals(device);
    const agent = await FakeAgent.connect(device, null);
    agent.say(first);
    await eventually(() => agent.isClosed);
    expect(reasons).toEqual([reason]);
    expect(agent.lines.join('\n')).toContain('no such host, or not its credential');
    expect(device.service.agents()).toEqual([]);
  });

  it('not one that says too much before it says who it is', async () => {
    await using device = await startDevice(['a']);
    const agent = await FakeAgent.connect(device, null);
    agent.say('x'.repeat(20_000));
    await eventually(() => agent.isClosed);
  });

  it('not one whose host is removed, or enrolled anew, while it is connected', async () => {
    await using device = await startDevice(['a', 'b']);
    const [a, b] = await Promise.all([FakeAgent.connect(device, 'a'), FakeAgent.connect(device, 'b')]);
    const pending = device.service.ask({ ...asked('a', 'b'), deadlineMs: 200 });
    const id = await a.inquiryId();
    device.hosts = [{ ...rowOf('b'), tokenSha256: createHash('sha256').update('new').digest('hex') }];
    a.say({ type: 'answer', id, findings: facts(NOT_MOUNTED) });
    b.say({ type: 'answer', id, findings: facts(NOT_MOUNTED) });
    expect((await pending).map(shortly)).toEqual(['a deadline', 'b deadline']);
    device.service.refresh();
    await eventually(() => a.isClosed && b.isClosed);
    expect(device.service.agents()).toEqual([]);
  });

  it('turns strangers away beyond a limit, and still takes hosts when they are gone', async () => {
    await using device = await startDevice(['a']);
    const strangers = await Promise.all(Array.from({ length: 140 }, () => FakeAgent.connect(device, null)));
    await eventually(() => strangers.filter((stranger) => stranger.isClosed).length >= 12);
    for (const stranger of strangers) stranger.end();
    await using _agent = await startAgent('a', unix(device), []);
    await eventually(() => device.service.agents().length === 1);
  });
});

describe('an agent', () => {
  it('comes back when the device does, and when it was refused', async () => {
    const first = await startDevice([]);
    let refusals = 0;
    first.service.on('refused', () => {
      refusals += 1;
    });
    await using agent = await startAgent('a', unix(first), []);
    await eventually(() => refusals > 0);
    first.hosts = [rowOf('a')];
    await eventually(() => first.service.agents().length === 1);
    const { socket } = first;
    await first.service.close();
    const service = new InquiryService({ hosts: () => [rowOf('a')], watchOf: () => [], log: SILENT_LOG });
    await service.listenUnix(socket);
    await eventually(() => service.agents().length === 1);
    expect((await service.ask(asked('a'))).map(shortly)).toEqual(['a not-mounted']);
    await agent.stop();
    await service.close();
    await first[Symbol.asyncDispose]();
  });

  it('of a name that another one has throws that one out, says why, and is doubted when it comes in turn', async () => {
    await using device = await startDevice(['a']);
    const contested: string[] = [];
    device.service.on('contested', (host) => contested.push(host));
    const answerOf = async (agent: FakeAgent): Promise<readonly string[]> => {
      const answers = device.service.ask(asked('a'));
      agent.say({ type: 'answer', id: await agent.inquiryId(), findings: facts(NOT_MOUNTED) });
      return (await answers).map(shortly);
    };
    const first = await FakeAgent.connect(device, 'a');
    const second = await FakeAgent.connect(device, 'a');
    await eventually(() => first.isClosed);
    expect(first.lines.at(-1)).toContain('another agent of host a has connected');
    expect([await answerOf(second), contested]).toEqual([['a not-mounted'], []]);
    const third = await FakeAgent.connect(device, 'a');
    await eventually(() => second.isClosed);
    expect([await answerOf(third), contested]).toEqual([['a unknown'], ['a']]);
  });

  it('that does not answer pings is taken for gone', async () => {
    await using device = await startDevice(['a'], 20);
    const agent = await FakeAgent.connect(device, 'a');
    const gone: string[] = [];
    device.service.on('disconnected', (host, reason) => gone.push(`${host}: ${reason}`));
    await eventually(() => agent.isClosed);
    expect(gone).toEqual(['a: the agent does not answer pings']);
  });

  it('that does answer them stays', async () => {
    await using device = await startDevice(['a'], 100);
    await using _agent = await startAgent('a', unix(device), []);
    const gone: string[] = [];
    device.service.on('disconnected', (host) => gone.push(host));
    await eventually(() => device.service.agents().length === 1);
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(gone).toEqual([]);
  });

  it('reports mounts and unmounts as they happen, and the table says how old its knowledge is', async () => {
    await using device = await startDevice(['a']);
    const changes: string[] = [];
    device.service.on('mounts', ({ host, volume, appeared, vanished }: MountChange) => {
      changes.push(`${host} ${volume} +${appeared.map((fact) => fact.kind).join(',')} -${vanished.map((fact) => fact.kind).join(',')}`);
    });
    const captured = await capturedHost(['kernel-nbd-ioctl']);
    const end = new AbortController();
    const run = runAgent(
      {
        control: unix(device),
        host: 'a',
        token: 'token-a',
        log: SILENT_LOG,
        probe: captured.probe,
        times: { compareMs: 10, lookMs: 60_000 },
      },
      end.signal,
    );
    device.watch = [{ volume: 1, name: 'vol1', uris: ['nbd://10.0.0.5/vol1'] }];
    await eventually(() => changes.length === 1);
    writeFileSync(
      `${captured.root}/proc/400/mountinfo`,
      '28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n91 28 43:1 / /new rw shared:40 - ext4 /dev/nbd0p1 rw\n',
    );
    await eventually(() => changes.length === 2);
    expect(changes).toEqual(['a 1 +mounted,mounted -', 'a 1 +mounted,open -mounted,mounted']);
    const [row] = device.service.mountTable();
    expect(row).toMatchObject({ host: 'a', volume: 1, isLive: true });
    expect(row?.facts[0]).toMatchObject({ mountPoint: '/new' });
    expect(Date.now() - (row?.reportedAtMs ?? 0)).toBeLessThan(5000);
    end.abort();
    await run;
    await eventually(() => device.service.agents().length === 0);
    expect(device.service.mountTable()).toMatchObject([{ host: 'a', isLive: false }]);
    device.hosts = [];
    device.service.refresh();
    expect(device.service.mountTable()).toEqual([]);
    captured[Symbol.dispose]();
  });

  it('learns of a volume that its host is granted later', async () => {
    await using device = await startDevice(['a']);
    device.watch = [];
    await using _agent = await startAgent('a', unix(device), ['kernel-nbd-netlink', 'nbdtab']);
    await eventually(() => device.service.agents().length === 1);
    expect(device.service.mountTable()).toEqual([]);
    device.watch = [TARGET];
    device.service.refresh();
    await eventually(() => device.service.mountTable().length === 1);
    expect(device.service.mountTable()[0]?.facts[0]).toMatchObject({ kind: 'mounted', mountPoint: '/srv/mirror' });
  });
});

describe('over mutual TLS', () => {
  it('a certificate that is bound to the host proves it; a token is not needed, but a wrong one refused', async () => {
    await using device = await startDevice(['web1', 'web2']);
    const authority = await CertificateAuthority.open(device.root, 'twinvol');
    const server = await authority.issueServer(['127.0.0.1']);
    const identity = await authority.issueHost('web1');
    const address = await device.service.listenTls({ host: '127.0.0.1', port: 0 }, server);
    const control: AgentControl = { kind: 'tls', ...address, identity };
    device.hosts = device.hosts.map((row) => (row.name === 'web1' ? { ...row, certificates: [identity.sha256] } : row));
    const reasons: string[] = [];
    device.service.on('refused', (_peer, host, reason) => reasons.push(`${host ?? '-'}: ${reason}`));
    await using _agent = await startAgent('web1', control, [], null);
    await eventually(() => device.service.agents().length === 1);
    expect(device.service.agents()[0]).toMatchObject({ host: 'web1', transport: 'tls' });
    expect((await device.service.ask(asked('web1'))).map(shortly)).toEqual(['web1 not-mounted']);
    await using _impostor = await startAgent('web2', control, [], 'token-web2');
    await eventually(() => reasons.includes('web2: its certificate is for web1'));
    await using _guesser = await startAgent('web1', control, [], 'guess');
    await eventually(() => reasons.includes('web1: its enrolment token is wrong'));
    expect(device.service.agents()).toHaveLength(1);
  });

  it('a host that was removed and added again under its name does not take the certificate of before', async () => {
    await using device = await startDevice(['web1']);
    const authority = await CertificateAuthority.open(device.root, 'twinvol');
    const [former, present] = [await authority.issueHost('web1'), await authority.issueHost('web1')];
    const address = await device.service.listenTls({ host: '127.0.0.1', port: 0 }, await authority.issueServer(['127.0.0.1']));
    const reasons: string[] = [];
    device.service.on('refused', (_peer, host, reason) => reasons.push(`${host ?? '-'}: ${reason}`));
    device.hosts = [{ ...rowOf('web1'), certificates: [present.sha256] }];
    await using _former = await startAgent('web1', { kind: 'tls', ...address, identity: former }, [], null);
    await eventually(() => reasons.some((reason) => reason.startsWith('web1: its certificate is not bound to the host')));
    // With the token of now it is the host of now, whatever certificate it has.
    await using _enrolled = await startAgent('web1', { kind: 'tls', ...address, identity: former }, []);
    await eventually(() => device.service.agents().length === 1);
    // A certificate that is taken away ends the connection that it proved.
    device.hosts = [{ ...rowOf('web2'), certificates: [] }];
    device.service.refresh();
    await eventually(() => device.service.agents().length === 0);
  });
});
