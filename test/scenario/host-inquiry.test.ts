/**
 * Hosts are asked before a secondary is overwritten: over the real agents' socket, with agents that say the truth, nothing,
 * too late, twice, nonsense or lies, and with everything that may happen between a question and a decision.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import type { AuditRecord, Device, Pair } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';
import { eventually, FakeAgent, type Inquiry, mountedAt, NOT_MOUNTED, openBy } from '../support/fake-agent.ts';
import type { PairDevice } from '../support/pair-device.ts';
import { checksum, duplexPair, failure, later, openPairDevice, readFrom, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';

/** One device for most of the tests: each has volumes and hosts of its own, and takes its hosts away again. */
let shared: Device;
let count = 0;
beforeAll(async () => {
  shared = await openDevice({ pvSize: '1G', lanes: 2, control: true });
});
afterAll(() => shared.close());

type Setup = PairDevice & { readonly db: string; readonly copy: string };

const hosted = async (): Promise<Setup> => {
  count += 1;
  const [db, copy] = [`db${count}`, `copy${count}`];
  const primary = await shared.createVolume(db, VOLUME_BYTES);
  const secondary = await shared.createVolume(copy, VOLUME_BYTES, { attribute: 'secondary' });
  const leave = async (): Promise<void> => {
    for (const { name } of await shared.engine.hostList()) await shared.engine.hostRemove({ name });
    await shared.set({ inquiryDeadlineMs: 3000 });
  };
  return { device: shared, primary, secondary, db, copy, [Symbol.asyncDispose]: leave };
};

/** A device of the test's own, for what the others would not survive. */
const alone = (): Promise<PairDevice> => openPairDevice({ control: true });

/** A split pair whose secondary differs from its primary. */
const splitPair = async (setup: PairDevice): Promise<Pair> => {
  const pair = await duplexPair(setup);
  await pair.split();
  await writeTo(setup.secondary, MiB, 4096, 7);
  return pair;
};

/** The records of the last inquiry: its kinds, and the decision. */
const lastInquiry = async (device: Device): Promise<{ readonly kinds: readonly string[]; readonly records: readonly AuditRecord[] }> => {
  const all = await device.engine.audit();
  const first = all.findLastIndex(({ kind }) => kind === 'inquiry');
  const records = all.slice(first);
  return { kinds: records.map(({ kind }) => kind), records };
};

const KEPT = (setup: PairDevice) => readFrom(setup.secondary, MiB, 4096);

describe('a host that is asked', () => {
  it('and has it not mounted lets the resync go on; question, answer, decision and outcome are on record', async () => {
    await using setup = await hosted();
    const { device, db, copy } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1');
    await (await pair.resync()).wait('duplex');
    expect(agent.inquiries).toMatchObject([{ volumes: [setup.secondary.number] }]);
    const { kinds, records } = await lastInquiry(device);
    expect(kinds).toEqual(['inquiry', 'answer', 'decision', 'outcome']);
    expect(records).toMatchObject([
      { command: `pair resync ${db} -> ${copy}`, hosts: ['web1'], volumes: [{ name: copy }] },
      { host: 'web1', outcome: 'answered', texts: [`host web1 does not use ${copy}`] },
      { decision: 'clear', token: null },
      { done: true, code: null },
    ]);
    expect(await checksum(setup.secondary).catch(() => 'refused')).toBe('refused');
  });

  it('and has it mounted stops the resync, which says what would be lost and when it was written', async () => {
    await using setup = await hosted();
    const { device, copy } = setup;
    const pair = await splitPair(setup);
    const kept = await KEPT(setup);
    await using _agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv/copy')]);
    const refused = await failure(pair.resync());
    expect(refused).toMatchObject({
      code: 'MOUNTED',
      message: expect.stringContaining(`host web1 has ${copy} mounted at /srv/copy (ext4, read-write)`),
      details: {
        findings: [{ key: 'mounted:web1', mountPoint: '/srv/copy', fileSystem: 'ext4' }],
        destroys: [{ volumeName: copy, bytes: 65_536, regions: 1, since: 'since the split' }],
      },
    });
    const [destroys] = refused.details.destroys as ReadonlyArray<{ firstAtMs: number; lastAtMs: number }>;
    expect(Math.abs((destroys?.firstAtMs ?? 0) - Date.now())).toBeLessThan(30_000);
    expect(pair.state).toBe('split');
    expect(await KEPT(setup)).toEqual(kept);
    expect(await pair.plan('resync')).toMatchObject({ hosts: ['web1'], destroys: [destroys], destroysBytes: 65_536 });
    expect((await lastInquiry(device)).records.at(-1)).toMatchObject({ kind: 'decision', decision: 'refused', code: 'MOUNTED' });
  });

  it('[agent-silent] and is silent, or has no agent, is never taken for one that has it not mounted', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await device.set({ inquiryDeadlineMs: 100 });
    await device.engine.hostAdd({ name: 'web2' });
    await using _silent = await FakeAgent.enrol(device, 'web1', () => {});
    const refused = await failure(pair.resync());
    expect(refused.code).toBe('NO_ANSWER');
    expect((refused.details.findings as Array<{ key: string }>).map(({ key }) => key)).toEqual(['no-answer:web1', 'no-answer:web2']);
    expect(pair.state).toBe('split');
    const overrides = ['no-answer:web1', 'no-answer:web2'];
    expect((await failure(pair.resync({ consent: { overrides: ['no-answer:web1'], reason: 'web2 is off' } }))).code).toBe('NO_ANSWER');
    await pair.resync({ consent: { overrides, reason: 'both are switched off', by: 'op' } });
    const { kinds, records } = await lastInquiry(device);
    expect(kinds).toEqual(['inquiry', 'answer', 'answer', 'decision', 'override', 'override', 'outcome']);
    expect(records.filter(({ kind }) => kind === 'override')).toMatchObject(
      overrides.map((key) => ({ key, reason: 'both are switched off', by: 'op', findings: [expect.stringContaining('did not say')] })),
    );
  });

  it('is asked before anything else that overwrites or gives away: create, restore, delete, into the pool, another size', async () => {
    await using setup = await hosted();
    const { device, primary, secondary, db } = setup;
    await using agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv')]);
    expect((await failure(primary.pair(secondary))).code).toBe('MOUNTED');
    expect((await failure(secondary.delete())).code).toBe('MOUNTED');
    expect((await failure(device.engine.volumeSet({ volume: primary.number, attribute: 'secondary' }))).code).toBe('MOUNTED');
    await device.createVolume('wide', 32 * MiB, { attribute: 'secondary' });
    agent.behaviour = [NOT_MOUNTED];
    const fitted = await device.engine.pairCreate({ primary: db, secondary: 'wide', fit: 'regions' });
    expect(fitted).toMatchObject({ secondary: { name: 'wide' } });
    await device.engine.pairWait({ primary: db, secondary: 'wide', state: 'duplex', timeoutMs: 20_000 });
    await device.engine.pairRelease({ primary: db, secondary: 'wide' });
    agent.behaviour = [mountedAt('/srv')];
    expect((await failure(device.engine.poolRestoreSize({ volume: 'wide' }))).code).toBe('MOUNTED');
    agent.behaviour = [NOT_MOUNTED];
    const pair = await splitPair(setup);
    agent.inquiries.length = 0;
    agent.behaviour = [mountedAt('/srv')];
    expect((await failure(pair.restore())).details.findings).toMatchObject([{ volume: primary.number }, { volume: secondary.number }]);
    expect(agent.inquiries[0]?.volumes).toEqual([primary.number, secondary.number]);
    expect(pair.state).toBe('split');
  });

  it('is asked about every member of a group at once, and one finding stops all of them', async () => {
    await using setup = await hosted();
    const { device, db } = setup;
    const pair = await splitPair(setup);
    const second = await device.createVolume('log', 4 * MiB);
    await device.createVolume('log-copy', 4 * MiB, { attribute: 'secondary' });
    const other = await (await second.pair()).wait('duplex');
    await other.split();
    await device.engine.groupCreate({ name: 'nightly' });
    await device.engine.groupAdd({ name: 'nightly', primary: db });
    await device.engine.groupAdd({ name: 'nightly', primary: 'log' });
    const logCopy = device.volume('log-copy').number;
    const onLogCopy = (inquiry: Inquiry, agent: FakeAgent): void => {
      const findings = inquiry.volumes.map((volume) => ({ volume, facts: [volume === logCopy ? mountedAt('/log') : NOT_MOUNTED] }));
      agent.say({ type: 'answer', id: inquiry.id, findings });
    };
    await using agent = await FakeAgent.enrol(device, 'web1', onLogCopy);
    const refused = await failure(device.engine.groupResync({ name: 'nightly' }));
    expect(refused).toMatchObject({ code: 'MOUNTED', details: { findings: [{ key: 'mounted:web1', volume: logCopy }] } });
    expect((refused.details.destroys as unknown[]).length).toBe(2);
    expect(agent.inquiries).toHaveLength(1);
    expect([pair.state, other.state]).toEqual(['split', 'split']);
    expect(await device.engine.groupResync({ name: 'nightly', plan: true })).toMatchObject({ plan: true, hosts: ['web1'] });
    await device.engine.groupResync({ name: 'nightly', consent: { token: String(refused.details.token) } });
    await Promise.all([pair.wait('duplex'), other.wait('duplex')]);
    const { kinds, records } = await lastInquiry(device);
    expect(kinds).toEqual(['inquiry', 'answer', 'answer', 'decision', 'outcome']);
    expect(records[0]).toMatchObject({ volumeCount: 2 });
  });
});

describe('an agent', () => {
  it('[agent-late] that answers late, or to another question, has not answered', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await device.set({ inquiryDeadlineMs: 150 });
    let former: Inquiry | null = null;
    await using agent = await FakeAgent.enrol(device, 'web1', async (inquiry, self) => {
      if (former !== null) self.answer(former, [NOT_MOUNTED]);
      former = inquiry;
      await later(400);
      self.answer(inquiry, [NOT_MOUNTED]);
    });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      expect(await failure(pair.resync())).toMatchObject({
        code: 'NO_ANSWER',
        message: expect.stringContaining('no answer within 150 ms'),
      });
    }
    await later(500);
    expect(pair.state).toBe('split');
    expect(agent.inquiries).toHaveLength(3);
  });

  it('that answers twice cannot take back what it said', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await using _two = await FakeAgent.enrol(device, 'web1', (inquiry, self) => {
      self.answer(inquiry, [mountedAt('/srv')]);
      self.answer(inquiry, [NOT_MOUNTED]);
    });
    await using _slow = await FakeAgent.enrol(device, 'web2', async (inquiry, self) => {
      await later(200);
      self.answer(inquiry, [NOT_MOUNTED]);
    });
    const { details } = await failure(pair.resync());
    expect((details.findings as Array<{ key: string }>).map(({ key }) => key)).toEqual(['mounted:web1', 'unknown:web1']);
  });

  it('that sends nonsense, or ends in the middle, has not answered', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await using _liar = await FakeAgent.enrol(device, 'web1', (_inquiry, self) => self.say('}{ not a message\n'));
    await using _odd = await FakeAgent.enrol(device, 'web2', ({ id }, self) =>
      self.say({ type: 'answer', id, findings: [{ volume: 999, facts: [NOT_MOUNTED] }] }),
    );
    await using _gone = await FakeAgent.enrol(device, 'web3', async (_inquiry, self) => self[Symbol.asyncDispose]());
    const { code, details } = await failure(pair.resync());
    expect(code).toBe('NO_ANSWER');
    expect((details.findings as Array<{ key: string }>).map(({ key }) => key)).toEqual([
      'no-answer:web1',
      'no-answer:web2',
      'no-answer:web3',
    ]);
  });

  it('[agent-lies] that lies is contradicted by the connection that is open', async () => {
    await using setup = await hosted();
    const { device, secondary } = setup;
    const pair = await splitPair(setup);
    await using _agent = await FakeAgent.enrol(device, 'web1', [NOT_MOUNTED]);
    await using client = await secondary.connect();
    await client.write(0, Buffer.alloc(512, 1));
    expect(await failure(pair.resync())).toMatchObject({ code: 'MOUNTED', details: { findings: [{ kind: 'client' }] } });
  });

  it('that names the connection makes one finding of the two', async () => {
    await using setup = await hosted();
    const { device, secondary } = setup;
    const pair = await splitPair(setup);
    await using client = await secondary.connect();
    await client.read(0, 512);
    const [view] = await device.engine.clientList();
    expect(view?.ref).toMatch(/^unix:\d+$/);
    await using _agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv', [view?.ref ?? ''])]);
    expect((await failure(pair.resync())).details.findings).toMatchObject([{ key: 'mounted:web1', clients: [view?.id] }]);
  });
});

describe('between the answer and the consent', () => {
  it('a host mounts: the consent is void, and the operator sees the new facts', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1', [openBy('qemu-nbd')]);
    const first = await failure(pair.resync());
    expect(first.details.findings).toMatchObject([{ key: 'open:web1' }]);
    agent.behaviour = [mountedAt('/srv/data')];
    const second = await failure(pair.resync({ consent: { token: String(first.details.token) } }));
    expect(second).toMatchObject({ code: 'CONSENT_VOID', details: { findings: [{ key: 'mounted:web1', mountPoint: '/srv/data' }] } });
    expect(pair.state).toBe('split');
    await pair.resync({ consent: { token: String(second.details.token), by: 'op' } });
    await pair.wait('duplex');
    expect((await lastInquiry(device)).records.find(({ kind }) => kind === 'decision')).toMatchObject({ decision: 'consented', by: 'op' });
  });

  it('a host writes: the consent is void, and the operator sees how much would be lost now', async () => {
    await using setup = await hosted();
    const { device, secondary } = setup;
    const pair = await splitPair(setup);
    await using _agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv/data')]);
    const first = await failure(pair.resync());
    expect(first.details.destroys).toMatchObject([{ regions: 1, bytes: 65536 }]);
    await writeTo(secondary, 5 * MiB, MiB, 8);
    const second = await failure(pair.resync({ consent: { token: String(first.details.token) } }));
    expect(second).toMatchObject({ code: 'CONSENT_VOID', details: { destroys: [{ regions: 17, bytes: 17 * 65536 }] } });
    expect(pair.state).toBe('split');
    await (await pair.resync({ consent: { token: String(second.details.token) } })).wait('duplex');
  });

  it('a consent is good once: the same facts after the next split are asked about again', async () => {
    await using setup = await hosted();
    const { device, db, copy } = setup;
    const pair = await splitPair(setup);
    await using _agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv')]);
    const { details } = await failure(pair.resync());
    const token = String(details.token);
    await (await pair.resync({ consent: { token } })).wait('duplex');
    await pair.split();
    expect((await failure(pair.resync({ consent: { token } }))).code).toBe('CONSENT_VOID');
    // The same for volumes in no pair, whose state does not tell the two apart.
    await pair.release();
    const asked = await failure(setup.primary.pair(setup.secondary));
    const created = { primary: db, secondary: copy, consent: { token: String(asked.details.token) } };
    await device.engine.pairCreate(created);
    await device.engine.pairWait({ primary: db, state: 'duplex', timeoutMs: 20_000 });
    await device.engine.pairRelease({ primary: db });
    expect((await failure(device.engine.pairCreate(created))).code).toBe('CONSENT_VOID');
  });

  it('two operators resync the same pair: one does it, the other is told', async () => {
    await using setup = await hosted();
    const { device } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv')]);
    const warnings = await Promise.all([failure(pair.resync()), failure(pair.resync())]);
    const tokens = warnings.map(({ details }) => String(details.token));
    expect(tokens[0]).toBe(tokens[1]);
    const both = await Promise.allSettled(tokens.map((token) => pair.resync({ consent: { token } })));
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'PAIR_STATE' } });
    expect(agent.inquiries).toHaveLength(3);
    await pair.wait('duplex');
  });

  it('[audit-write-fails] the record cannot be written: nothing is overwritten', async () => {
    await using setup = await alone();
    const { device } = setup;
    const pair = await splitPair(setup);
    const kept = await KEPT(setup);
    rmSync(join(device.status().store.directory, 'audit.log'));
    expect((await failure(pair.resync())).code).toBe('STORE_IO');
    expect(pair.state).toBe('split');
    expect(await KEPT(setup)).toEqual(kept);
  });
});

describe('while the hosts are asked', () => {
  const slow = (ms: number, facts: Parameters<FakeAgent['answer']>[1]) => async (inquiry: Inquiry, self: FakeAgent) => {
    await later(ms);
    self.answer(inquiry, facts);
  };

  it('a new connection waits; it is let in when the resync is given up', async () => {
    await using setup = await hosted();
    const { device, secondary } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1', slow(400, [mountedAt('/srv')]));
    const refused = failure(pair.resync());
    await eventually(() => agent.inquiries.length === 1, 'the question');
    const startedMs = performance.now();
    await using client = await secondary.connect();
    expect(performance.now() - startedMs).toBeGreaterThan(150);
    expect((await refused).code).toBe('MOUNTED');
    // It came too late to be a finding of this inquiry, and is one of the next.
    expect((await refused).details.findings).toHaveLength(1);
    await client.write(0, Buffer.alloc(512, 1));
  });

  it('a new connection waits; it is refused when the resync goes on, and has not written a byte', async () => {
    await using setup = await hosted();
    const { device, primary, secondary } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1', slow(400, [NOT_MOUNTED]));
    const resync = pair.resync();
    await eventually(() => agent.inquiries.length === 1, 'the question');
    const late = await failure(secondary.connect().then((client) => client.write(0, Buffer.alloc(4096, 99))));
    expect(late.message).toContain('secondary');
    await (await resync).wait('duplex');
    expect((await pair.verify()).differingBytes).toBe(0);
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
  });

  it('writes of those who are there wait, and nothing of theirs is lost when the resync is given up', async () => {
    await using setup = await hosted();
    const { device, secondary } = setup;
    const pair = await splitPair(setup);
    await using client = await secondary.connect();
    await using agent = await FakeAgent.enrol(device, 'web1', slow(300, [NOT_MOUNTED]));
    const refused = failure(pair.resync());
    await eventually(() => agent.inquiries.length === 1, 'the question');
    const startedMs = performance.now();
    await client.write(2 * MiB, Buffer.alloc(4096, 5));
    expect(performance.now() - startedMs).toBeGreaterThan(100);
    expect((await refused).code).toBe('MOUNTED');
    expect((await client.read(2 * MiB, 4096)).every((byte) => byte === 5)).toBe(true);
  });

  it('the device stops: the inquiry ends without a permission', async () => {
    const setup = await alone();
    const { device } = setup;
    const pair = await splitPair(setup);
    await using agent = await FakeAgent.enrol(device, 'web1', () => {});
    const refused = failure(pair.resync());
    await eventually(() => agent.inquiries.length === 1, 'the question');
    await device.close();
    expect((await refused).code).toBe('NO_ANSWER');
  });
});

it('an inquiry without a command says what is used now, and changes nothing', async () => {
  await using setup = await hosted();
  const { device, secondary, copy } = setup;
  await using agent = await FakeAgent.enrol(device, 'web1', [mountedAt('/srv')]);
  expect(await device.engine.inquiry(copy)).toMatchObject({
    clear: false,
    hosts: ['web1'],
    answers: [{ host: 'web1', outcome: 'answered', texts: [expect.stringContaining('/srv')] }],
    findings: [{ key: 'mounted:web1' }],
  });
  expect((await lastInquiry(device)).records.at(-1)).toMatchObject({ kind: 'decision', decision: 'looked' });
  agent.behaviour = [NOT_MOUNTED];
  await splitPair(setup);
  agent.behaviour = [mountedAt('/srv')];
  const [finding, preview] = (await device.engine.inquiry(copy)).warnings;
  expect(finding).toContain('/srv');
  expect(preview).toMatch(/^a resync of its pair would destroy what was written on copy\d+ since the split: 64 KiB in 1 region, first at /);
  agent.behaviour = [NOT_MOUNTED];
  expect(await device.engine.inquiry(secondary.number)).toMatchObject({ clear: true, findings: [] });
});

it('what hosts report is shown with its age, and told as it happens', async () => {
  await using setup = await hosted();
  const { device, secondary, db, copy } = setup;
  await using agent = await FakeAgent.enrol(device, 'web1');
  agent.report(secondary.number, [mountedAt('/srv')]);
  await eventually(() => device.engine.mounts().length === 1, 'the report');
  const [mount] = device.engine.mounts({ volume: copy });
  expect(mount).toMatchObject({ host: 'web1', inUse: true, isLive: true, texts: [expect.stringContaining('mounted at /srv')] });
  expect(mount?.ageMs).toBeLessThan(5000);
  expect(device.engine.mounts({ volume: db })).toEqual([]);
  agent.report(secondary.number, [NOT_MOUNTED]);
  await eventually(() => device.engine.mounts()[0]?.inUse === false, 'the second report');
  await agent[Symbol.asyncDispose]();
  await eventually(() => device.engine.mounts()[0]?.isLive === false, 'the agent is gone');
  const told: object[] = [];
  for await (const event of device.events({ follow: false })) if (event.object === 'host') told.push(event.data);
  expect(told.length).toBeGreaterThan(0);
});
