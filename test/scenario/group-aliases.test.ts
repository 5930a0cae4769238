/**
 * The paircreate family on a real device, as scripts use it: each flag of `src/cli/ALIASES.md`, and the exit statuses that
 * scripts branch on.
 */
import { symlink } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { ALIAS_TABLE } from '../../src/cli/alias-flags.ts';
import { MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { run } from '../support/clients.ts';
import { writeTo } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { type Ran, runLine } from '../unit/cli/command-line.ts';
import { MAIN } from './cli-process.ts';

it('a link of the name of an alias is that alias', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await using device = await openDevice({ store, create: true, control: true, pvSize: '64M', lanes: 1 });
  await device.createVolume('db', MiB);
  const link = temporary.path('pairvolchk');
  await symlink(MAIN, link);
  const env = { TWINVOL_STORE: store };
  expect(await run(process.execPath, [link, '-d', 'db', '-ss'], { env })).toMatchObject({ status: 11, stdout: 'db: SMPL\n' });
  expect(await run(process.execPath, [link, '--help'], { env })).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('Usage: twinvol pairvolchk'),
  });
});

it('one inquiry is made for a group that is resynced, and all of its pairs start or none', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await using device = await openDevice({ store, create: true, control: true, pvSize: '64M', lanes: 1 });
  await device.engine.groupCreate({ name: 'g' });
  for (const name of ['one', 'two']) {
    const primary = await device.createVolume(name, MiB);
    const pair = await primary.pair(await device.createVolume(`${name}-copy`, MiB, { attribute: 'secondary' }));
    await pair.wait('duplex');
    await device.engine.groupAdd({ name: 'g', primary: name });
  }
  await device.engine.groupSplit({ name: 'g' });
  const client = await device.volume('two-copy').connect();
  expect(await runLine('pairresync -g g', {}, store)).toMatchObject({ exit: 11 });
  expect(device.pairs().map((pair) => pair.state)).toEqual(['split', 'split']);
  await client.disconnect();
  const resynced = async (): Promise<number> => (await runLine('pairresync -g g -c 15', {}, store)).exit;
  await expect.poll(resynced, { timeout: 10_000 }).toBe(0);
  for (const pair of device.pairs()) await pair.wait('duplex');
});

it('--wait waits until the copies of all the group are done, and not for what does not come by itself', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await using device = await openDevice({ store, create: true, control: true, pvSize: '256M', lanes: 1 });
  await device.engine.groupCreate({ name: 'g' });
  for (const name of ['one', 'two']) {
    const primary = await device.createVolume(name, 32 * MiB);
    await writeTo(primary, 0, 32 * MiB, 1);
    // Slow enough that the copy is seen under way.
    await device.createVolume(`${name}-copy`, 32 * MiB, { attribute: 'secondary' });
    await device.engine.faultAdd({ volume: `${name}-copy`, error: 'write', errno: 'none', latencyMs: 200 });
    await primary.pair(device.volume(`${name}-copy`));
    await device.engine.groupAdd({ name: 'g', primary: name });
  }
  const line = (words: string): Promise<Ran> => runLine(words, {}, store);
  expect(await line('group split g')).toMatchObject({ exit: 10, err: expect.stringContaining('[PAIR_STATE]') });
  expect(await line('pair split --group g --wait --timeout 10ms')).toMatchObject({ exit: 1, err: expect.stringContaining('[TIMEOUT]') });
  expect(device.pairs().map((pair) => pair.state)).toContain('duplex-pending');
  await device.engine.faultClear({});
  expect(await line('pair split --group g --wait --timeout 60s')).toMatchObject({ exit: 0 });
  expect(device.pairs().map((pair) => pair.state)).toEqual(['split', 'split']);
  // A split pair does not become duplex by itself: refused at once.
  for (const words of ['group split g --wait', 'pair split one --wait', 'pair split one one-copy --wait'])
    expect(await line(words)).toMatchObject({ exit: 10, err: expect.stringContaining('[PAIR_STATE]') });
});

it('the family works as its page says, with its exit statuses', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await using device = await openDevice({ store, create: true, control: true, pvSize: '256M', lanes: 1 });
  const used = new Set<string>();
  const line = (words: string): Promise<Ran> => {
    const [name, ...rest] = words.split(' ');
    for (const word of rest) if (word.startsWith('-')) used.add(`${name} ${word}`);
    return runLine(words, {}, store);
  };
  const exit = async (words: string): Promise<number> => (await line(words)).exit;
  const text = async (words: string): Promise<string> => {
    const ran = await line(words);
    // How far a copy is goes to stderr.
    expect({ words, exit: ran.exit, err: ran.exit === 0 ? '' : ran.err }).toEqual({ words, exit: 0, err: '' });
    return ran.out;
  };
  for (const name of ['db', 'web']) {
    await device.createVolume(name, 8 * MiB);
    await device.createVolume(`${name}-copy`, 8 * MiB, { attribute: 'secondary' });
  }

  expect(await exit('pairvolchk -d db')).toBe(1);
  expect(await exit('pairvolchk -d db -ss')).toBe(11);
  expect(await exit('pairevtwait -d db -nowait')).toBe(1);
  expect(await exit('paircreate -g nightly -d db:db-copy -vl')).toBe(10);
  expect(device.pairs()).toEqual([]);
  expect((await runLine('group create nightly', {}, store)).exit).toBe(0);

  expect(await text('paircreate -g nightly -d db:db-copy -vl -c 15 -f never')).toBe('db -> db-copy COPY\n');
  expect(await text('pairevtwait -g nightly -s pair -t 60 5')).toBe('PAIR\n');
  expect(await text('paircreate -d web -f data -split')).toBe('web -> web-copy PSUS\n');
  expect(device.pairs().map((pair) => pair.status())).toMatchObject([
    { group: 'nightly', pace: 15, fence: 'never', state: 'duplex' },
    { group: null, pace: 8, fence: 'data', state: 'split' },
  ]);
  expect(await exit('pairvolchk -d db -ss -l')).toBe(23);
  expect(await exit('pairvolchk -d db-copy')).toBe(3);
  expect(await exit('pairvolchk -d db-copy -ss')).toBe(33);
  expect(await exit('pairvolchk -d web -ss')).toBe(24);
  expect(await exit('pairvolchk -d web-copy -ss')).toBe(34);
  expect(await exit('pairvolchk -g nightly -ss')).toBe(23);
  expect(await exit('pairevtwait -d web -nowait -l')).toBe(4);
  expect(await exit('pairevtwait -d db -s psus -t 0')).toBe(233);
  expect((await text('pairdisplay -g nightly -fc -CLI')).split('\n')).toEqual([
    'Group    PairVol  LDEV#  P/S    Status  Fence    %  P-LDEV#',
    'nightly  db           1  P-VOL  PAIR    NEVER  100        2',
    'nightly  db-copy      2  S-VOL  PAIR    NEVER  100        1',
    '',
  ]);
  expect(await text('pairdisplay -d web -l')).toMatch(/web +3 +P-VOL +PSUS +DATA.*\n.*web-copy +4 +S-VOL +SSUS/);

  expect(await text('pairsplit -g nightly -rw -l')).toContain('1 pair split at one point in time');
  expect(await exit('pairsplit -d db')).toBe(10);
  expect(await exit('pairvolchk -g nightly')).toBe(2);
  {
    await using client = await device.volume('db-copy').connect();
    await client.write(0, Buffer.alloc(4096, 1));
    const refused = await line('pairresync -g nightly');
    expect(refused).toMatchObject({ exit: 11, err: expect.stringContaining('[MOUNTED]') });
    const { id } = (await device.engine.clientList())[0] ?? { id: 0 };
    expect(await exit(`pairresync -d db --override client:${id}`)).toBe(64);
    expect(await exit(`pairresync -d db:db-copy -c 15 -l --override client:${id} --reason test`)).toBe(0);
  }
  expect(await exit('pairevtwait db db-copy -s pair -t 60')).toBe(0);
  expect(await text('pairsplit db db-copy')).toBe('db -> db-copy PSUS\n');
  expect(await text('pairresync -d db -restore')).toBe('db -> db-copy COPY\n');
  expect(await exit('pairevtwait -d db -s pair -t 60')).toBe(0);

  // An error on a leg: suspended.
  await device.engine.faultAdd({ volume: 'db-copy', error: 'write', errno: 'EIO' });
  await using writer = await device.volume('db').connect();
  await writer.write(0, Buffer.alloc(4096, 2));
  expect(await exit('pairevtwait -d db -s psue -t 60')).toBe(0);
  expect(await exit('pairvolchk -d db -ss')).toBe(25);
  expect(await exit('pairvolchk -d db-copy -ss')).toBe(35);
  expect(await exit('pairevtwait -d db -nowait')).toBe(5);
  expect(await line('pairevtwait -d db -s pair -t 60')).toMatchObject({ exit: 232, err: expect.stringContaining('is suspended') });
  for (const [words, status] of [
    ['pairevtwait -d db -s pair -t 60 -nomsg', 232],
    ['pairevtwait -d db -nowait -nomsg', 5],
    ['pairvolchk -d db -ss -nomsg', 25],
  ] as const)
    expect(await line(words)).toMatchObject({ exit: status, out: '', err: '' });

  expect(await text('pairsplit -g nightly -S')).toBe('db -> db-copy SMPL\n');
  expect(await text('pairsplit -d web:web-copy -S')).toBe('web -> web-copy SMPL\n');
  expect(await exit('pairevtwait -d db:db-copy -s smpl -t 5')).toBe(0);
  expect(await text('pairdisplay')).toBe('no pairs\n');
  expect(await exit('pairvolchk -g nightly')).toBe(1);
  expect(await exit('pairsplit -d db')).toBe(10);

  // What this device does not do is refused by name; what nobody knows is a usage error.
  for (const words of [
    'paircreate -d db -vr',
    'pairsplit -d db -r',
    'pairsplit -d db -E',
    'paircreate -d db -nocopy',
    'pairresync -d db -swaps',
  ]) {
    expect(await line(words)).toMatchObject({ exit: 10, err: expect.stringContaining('[NOT_SUPPORTED]') });
  }
  for (const words of [
    'paircreate -d db -f async',
    'paircreate -d db -c 16',
    'pairsplit',
    'pairevtwait -d db -s nothing -t 1',
    'pairevtwait -d db -s pair -t soon',
    'pairevtwait -d db -s pair -s psus -t 1',
    'pairresync -d',
    'pairdisplay -x',
    'pairsplit -d db web',
    'pairsplit a b c',
    'pairsplit -d a:b:c',
    'pairsplit -d a -d b',
  ]) {
    expect(await line(words)).toMatchObject({ exit: 64, err: expect.stringContaining('[USAGE]') });
  }

  // Every flag of the page was used above (or stands for nothing, or is the consent that all destroying ones share).
  const shared = ['--override', '--reason', '-l'];
  const documented = ALIAS_TABLE.flatMap(({ name, flags }) => flags.map(({ flag }) => `${name} ${flag}`));
  expect(documented.filter((flag) => !used.has(flag) && !shared.includes(flag.split(' ')[1] ?? ''))).toEqual([]);
});
