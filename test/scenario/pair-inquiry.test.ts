/** A secondary that somebody still uses is not overwritten unless the operator consents to exactly what was found. */
import { describe, expect, it } from 'vitest';
import type { NbdError } from '../../src/nbd-client/nbd-error.ts';
import { MiB } from '../../src/core/units.ts';
import { checksum, duplexPair, failure, lastSeq, later, openPairDevice, writeTo } from '../support/pair-device.ts';

describe('a split secondary with a client', () => {
  it('stops a resync, and nothing is lost or changed', async () => {
    await using setup = await openPairDevice();
    const { secondary } = setup;
    const pair = await duplexPair(setup);
    await pair.split();
    await using host = await secondary.connect();
    await host.write(MiB, Buffer.alloc(4096, 9));
    const refused = await failure(pair.resync());
    expect(refused).toMatchObject({
      code: 'MOUNTED',
      details: { command: 'pair resync db -> copy', token: expect.any(String), destroys: [{ volumeName: 'copy', bytes: 65_536 }] },
    });
    expect(refused.details.findings).toMatchObject([{ kind: 'client', key: expect.stringMatching(/^client:\d+$/) }]);
    expect(refused.message).toContain('NBD connection');
    expect(pair.state).toBe('split');
    // The hold is lifted: the client goes on writing.
    await host.write(2 * MiB, Buffer.alloc(4096, 9));
    expect((await host.read(MiB, 4096)).every((byte) => byte === 9)).toBe(true);
  });

  it('is resynced when the operator consents to what was shown, and the client is told to go', async () => {
    await using setup = await openPairDevice();
    const { primary, secondary } = setup;
    const pair = await duplexPair(setup);
    await pair.split();
    const host = await secondary.connect();
    await writeTo(primary, 0, MiB, 3);
    const { details } = await failure(pair.resync());
    await pair.resync({ consent: { token: String(details.token) } });
    const told = (await failure(host.read(0, 512))) as unknown as NbdError;
    expect(told.message).toMatch(/shut|clos|ended|lost/i);
    await pair.wait('duplex');
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
    await host[Symbol.asyncDispose]();
  });

  it('voids a consent when the facts have changed since', async () => {
    await using setup = await openPairDevice();
    const { secondary } = setup;
    const pair = await duplexPair(setup);
    await pair.split();
    await using first = await secondary.connect();
    const { details } = await failure(pair.resync());
    await using second = await secondary.connect();
    const voided = await failure(pair.resync({ consent: { token: String(details.token) } }));
    expect(voided.code).toBe('CONSENT_VOID');
    expect(voided.details.findings).toHaveLength(2);
    expect(pair.state).toBe('split');
    expect(first.isOpen && second.isOpen).toBe(true);
    // A consent given for one split is none for the next.
    await first.disconnect();
    await second.disconnect();
    await later(50);
    await (await pair.resync()).wait('duplex');
    await pair.split();
    await using third = await secondary.connect();
    expect((await failure(pair.resync({ consent: { token: String(voided.details.token) } }))).code).toBe('CONSENT_VOID');
    expect(third.isOpen).toBe(true);
  });

  it('is overridden in a script only by naming every finding, with a reason, and both are recorded', async () => {
    await using setup = await openPairDevice();
    const { device, secondary } = setup;
    const pair = await duplexPair(setup);
    await pair.split();
    await using host = await secondary.connect();
    const { details } = await failure(pair.resync());
    const keys = (details.findings as ReadonlyArray<{ readonly key: string }>).map((finding) => finding.key);
    expect((await failure(pair.resync({ consent: { overrides: keys } }))).code).toBe('USAGE');
    expect((await failure(pair.resync({ consent: { overrides: ['client:999'], reason: 'rehearsal' } }))).code).toBe('CONSENT_VOID');
    const since = await lastSeq(device);
    await pair.resync({ consent: { overrides: keys, reason: 'rehearsal' } });
    const recorded = [];
    for await (const event of device.events({ since, follow: false })) if (event.object === 'inquiry') recorded.push(event);
    expect(recorded).toMatchObject([{ kind: 'notice', data: { decision: 'overridden', overrides: keys, reason: 'rehearsal' } }]);
    expect(await failure(host.read(0, 512))).toBeInstanceOf(Error);
  });
});

it('a pool volume with a client is not taken as a secondary, and a volume with a client is not deleted', async () => {
  await using setup = await openPairDevice();
  const { primary, secondary } = setup;
  await using host = await secondary.connect();
  await host.write(0, Buffer.alloc(4096, 1));
  expect((await failure(primary.pair())).code).toBe('MOUNTED');
  expect((await failure(secondary.delete())).code).toBe('MOUNTED');
  expect(primary.pairs()).toEqual([]);
  expect((await host.read(0, 4096)).every((byte) => byte === 1)).toBe(true);
});

it('a restore asks for the primary: a client that has it open stops it', async () => {
  await using setup = await openPairDevice();
  const { primary } = setup;
  await writeTo(primary, 0, MiB, 1);
  const pair = await duplexPair(setup);
  await pair.split();
  await using host = await primary.connect();
  const refused = await failure(pair.restore());
  expect(refused).toMatchObject({ code: 'MOUNTED', details: { findings: [{ kind: 'client', volume: primary.number }] } });
  await host.write(0, Buffer.alloc(4096, 4));
  expect(pair.state).toBe('split');
});

it('a connection that comes while the secondary is held waits, and is then refused by the new state', async () => {
  await using setup = await openPairDevice();
  const { secondary } = setup;
  const pair = await duplexPair(setup);
  await pair.split();
  const attempts = Promise.allSettled(
    Array.from({ length: 20 }, async (_, index) => {
      await later(index);
      await using client = await secondary.connect();
      await client.write(0, Buffer.alloc(512, 3));
    }),
  );
  await later(8);
  const outcome = await pair.resync().then(
    () => 'resynced',
    (error: { code: string }) => error.code,
  );
  await attempts;
  // Either no client was there at that moment, or one was found; a write never reached a secondary that is mirrored.
  expect(['resynced', 'MOUNTED']).toContain(outcome);
  if (outcome === 'resynced') {
    await pair.wait('duplex');
    expect((await pair.verify()).differingBytes).toBe(0);
  }
});
