/**
 * The engine is killed between the operator's consent and the copy. What must hold: the consent is on record; before the
 * pair's record is durable nothing has happened and the secondary is as it was; after it the next start makes the pair
 * equal by itself; and the audit record says of neither that it was carried out.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { run } from '../support/clients.ts';
import type { Moment } from '../support/consent-crash-main.ts';
import { checksum, readFrom, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

let temporary: TemporaryDirectory;
/** A store with a split pair whose sides differ, and a host without an agent; each test has a copy of it. */
let original: string;
let kept: Buffer;

beforeAll(async () => {
  temporary = await temporaryDirectory();
  original = temporary.path('original');
  await using device = await openDevice({ store: original, create: true, pvSize: '64M', lanes: 1 });
  const db = await device.createVolume('db', VOLUME_BYTES);
  const copy = await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
  await writeTo(db, 0, MiB, 1);
  const pair = await (await db.pair(copy)).wait('duplex');
  await pair.split();
  await writeTo(db, 0, 65_536, 2);
  await writeTo(copy, 2 * MiB, 65_536, 3);
  await device.engine.hostAdd({ name: 'web1' });
  kept = await readFrom(copy, 0, 4 * MiB);
});
afterAll(() => temporary[Symbol.asyncDispose]());

describe('an engine that is killed after the consent', () => {
  it.each(['consented', 'recorded', 'clients-ended', 'switched'] satisfies Moment[])('[consent-kill] when it has %s', async (moment) => {
    const store = temporary.path(moment);
    expect((await run('cp', ['-a', original, store])).status).toBe(0);
    const killed = await run(process.execPath, ['--import', 'tsx', 'test/support/consent-crash-main.ts', store, moment]);
    expect(killed).toMatchObject({ signal: 'SIGKILL' });

    await using device = await openDevice({ store, lanes: 1 });
    const [db, copy] = [device.volume('db'), device.volume('copy')];
    const pair = device.pairs()[0];
    if (moment === 'consented') {
      expect(pair?.state).toBe('split');
      expect((await readFrom(copy, 0, 4 * MiB)).equals(kept)).toBe(true);
    } else {
      await pair?.wait('duplex');
      expect((await pair?.verify())?.differingBytes).toBe(0);
      await pair?.split();
      expect(await checksum(copy)).toBe(await checksum(db));
    }
    const records = (await device.engine.audit()).filter((record) => 'inquiry' in record && record.inquiry > 1);
    // Nobody asks in this engine, so there is no answer; and there is no outcome.
    expect(records).toMatchObject([
      { kind: 'decision', decision: 'overridden', by: 'test', reason: 'web1 is off' },
      { kind: 'override', key: 'no-answer:web1' },
    ]);
  });
});
