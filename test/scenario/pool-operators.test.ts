/** Operators and programs at the pool: the report, the choice from it, two who choose at the same time, and what a command would do. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import type { CandidateView, PairView } from '../../src/core/views.ts';
import { openDevice } from '../../src/index.ts';
import type { Device } from '../../src/index.ts';
import { needClient } from '../support/clients.ts';
import { failure, writeTo } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { type Person, type Ran, runLine } from '../unit/cli/command-line.ts';
import { MAIN } from './cli-process.ts';

type Desk = AsyncDisposable & {
  readonly device: Device;
  readonly store: string;
  readonly line: (words: string, person?: Person) => Promise<Ran>;
};

/** A device with primaries and pool volumes of so many MiB, and a command line. */
const desk = async (primaries: Readonly<Record<string, number>>, pool: Readonly<Record<string, number>>, pvSize = '64M'): Promise<Desk> => {
  const temporary = await temporaryDirectory();
  const store = temporary.path('store');
  const device = await openDevice({ store, create: true, control: true, pvSize, lanes: 1 });
  for (const [name, megabytes] of Object.entries(primaries)) await device.createVolume(name, megabytes * MiB);
  for (const [name, megabytes] of Object.entries(pool)) await device.createVolume(name, megabytes * MiB, { attribute: 'secondary' });
  return {
    device,
    store,
    line: (words, person) => runLine(words, person, store),
    [Symbol.asyncDispose]: async () => {
      await device.close();
      await temporary[Symbol.asyncDispose]();
    },
  };
};

const regionsIn = (runs: ReadonlyArray<{ readonly pv: number; readonly start: number; readonly count: number }>): string[] =>
  runs.flatMap(({ pv, start, count }) => Array.from({ length: count }, (_, index) => `${pv}:${start + index}`));

describe('the report of unused secondaries', () => {
  it('has number, capacity and fit of each, and the reason of every volume that is none', async () => {
    await using pool = await desk({ db: 8, web: 4 }, { same: 8, small: 4, large: 9, kept: 8, used: 4 });
    await pool.line('volume protect kept');
    await pool.line('pair create web used');
    expect((await pool.line('pool candidates db')).out.split('\n')).toEqual([
      'NUMBER  NAME    SIZE  FIT',
      '     3  same   8 MiB  same',
      '     5  large  9 MiB  larger',
      '',
    ]);
    const explained = JSON.parse((await pool.line('pool candidates db --explain --json')).out) as CandidateView[];
    expect(explained.map(({ name, candidate, reason }) => [name, candidate, reason])).toEqual([
      ['db', false, 'it is the primary itself'],
      ['web', false, expect.stringContaining('it is a primary (of used')],
      ['same', true, null],
      ['small', false, 'it is smaller by 4 MiB, and regions are not fitted'],
      ['large', true, null],
      ['kept', false, 'it is protected: it is not offered, but can be named'],
      ['used', false, expect.stringContaining('it is in use as the secondary of web')],
    ]);
    const fitted = JSON.parse((await pool.line('pool candidates db --fit regions --json')).out) as CandidateView[];
    expect(fitted.map(({ name, fit }) => [name, fit])).toEqual([
      ['same', 'same'],
      ['small', 'smaller'],
      ['large', 'larger'],
    ]);
    const alike = JSON.parse((await pool.line('pool candidates db --condition same --json')).out) as CandidateView[];
    expect(alike.map(({ name }) => name)).toEqual(['same']);
    const volumes = (await pool.line('volume list')).out;
    for (const row of ['db +8 MiB +normal +invalid', 'used +4 MiB +secondary +in-use', 'same +8 MiB +secondary +unused'])
      expect(volumes).toMatch(new RegExp(row));
  });

  it('is a list to pick from on a terminal, with the arrow keys, also of volumes that have to be fitted', async () => {
    await using pool = await desk({ db: 8, web: 8 }, { one: 8, two: 8, small: 4 });
    const picked = await pool.line('pair create db --choose', { keys: ['down', 'enter'], answers: [] });
    expect(picked).toMatchObject({ exit: 0, out: expect.stringContaining('pair db -> two formed') });
    expect(picked.err).not.toContain('small');
    const fitted = await pool.line('pair create web --choose --fit regions', { keys: ['down', 'enter'], answers: [] });
    expect(fitted.out).toContain('pair web -> small formed');
    expect(await pool.line('pair create db --choose')).toMatchObject({ exit: 64 });
    expect(await pool.line('pair create db one --choose', { keys: ['enter'], answers: [] })).toMatchObject({
      exit: 64,
      err: expect.stringContaining('takes a SECONDARY, or --choose'),
    });
    expect(await pool.line('pair create db --choose', { keys: ['cancel'], answers: [] })).toMatchObject({
      exit: 10,
      err: expect.stringContaining('NOT_CONFIRMED'),
    });
  });
});

describe('on a real terminal', () => {
  /** Runs a line there, and presses the keys once the list is drawn; what the terminal showed. */
  const onTerminal = async (pool: Desk, words: string, keys: string): Promise<string> => {
    const command = `'${process.execPath}' '${MAIN}' --store '${pool.store}' ${words}; echo "status $?"`;
    const terminal = spawn(needClient('script'), ['-qefc', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
    let shown = '';
    let isPressed = false;
    terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      if (isPressed || !shown.includes('> ')) return;
      isPressed = true;
      terminal.stdin.write(keys);
    });
    await once(terminal, 'close');
    return shown;
  };

  it('the arrow keys of a terminal choose, and Escape gives up and leaves the terminal as it was', async () => {
    await using pool = await desk({ db: 8 }, { one: 8, two: 8, three: 8 });
    expect(await onTerminal(pool, 'pair create db --choose', '\u001b')).toMatch(/nothing was chosen[\s\S]*status 10/);
    expect(pool.device.pairs()).toEqual([]);
    const down = '\u001b[B';
    const up = '\u001b[A';
    expect(await onTerminal(pool, 'pair create db --choose', `${down}${down}${down}${up}\r`)).toMatch(
      /pair db -> two formed[\s\S]*status 0/,
    );
    expect(await onTerminal(pool, 'pair create db --choose; stty -a', '\u0003')).toMatch(/nothing was chosen[\s\S]* icanon [\s\S]* echo /);
  }, 60_000);
});

describe('the plan of a fitting', () => {
  it('names the regions that would move, and they are the ones that do', async () => {
    await using pool = await desk({ db: 8, web: 9 }, { large: 12, small: 4 });
    const { engine } = pool.device;
    for (const [primary, secondary] of [
      ['db', 'large'],
      ['web', 'small'],
    ] as const) {
      const before = pool.device.volume(secondary).info().runs;
      const planned = await engine.pairCreate({ primary, secondary, fit: 'regions', plan: true });
      if (!('plan' in planned)) throw new Error('a plan was asked for');
      const [move] = planned.moves;
      await engine.pairCreate({ primary, secondary, fit: 'regions' });
      const after = pool.device.volume(secondary).info().runs;
      const [more, fewer] = move?.to === null ? [before, after] : [after, before];
      expect(regionsIn(more).filter((region) => !regionsIn(fewer).includes(region))).toEqual(regionsIn(move?.runs ?? []));
      expect(move?.firstRegion).toBe(Math.min(regionsIn(more).length, regionsIn(fewer).length));
    }
    await pool.line('pair release db');
    expect((await pool.line('pool restore-size large --plan')).out).toMatch(
      /moves +regions 8 to 11 of large from the unassigned-region table: \d+ to \d+ of physical volume 1/,
    );
  });
});

describe('two who choose at the same time', () => {
  it('of the same volume: one wins, the other is told who has it', async () => {
    await using pool = await desk({ a: 4, b: 4 }, { spare: 4 });
    const number = pool.device.volume('spare').number;
    const outcomes = await Promise.all([pool.line(`pair create a ${number} --json`), pool.line(`pair create b ${number} --json`)]);
    expect(outcomes.map(({ exit }) => exit).toSorted((left, right) => left - right)).toEqual([0, 10]);
    const winner = JSON.parse(outcomes.find(({ exit }) => exit === 0)?.out ?? '') as PairView;
    const told = JSON.parse(outcomes.find(({ exit }) => exit === 10)?.err ?? '').error as {
      readonly code: string;
      readonly message: string;
    };
    expect(told).toMatchObject({
      code: 'VOLUME_PAIRED',
      remedy: expect.stringContaining('twinvol pool candidates'),
      message: expect.stringContaining(`it is in use as the secondary of ${winner.primary.name}`),
    });
    expect(pool.device.pairs()).toHaveLength(1);
  });

  it('without naming one: each gets another, and who comes too late is told that none is left', async () => {
    await using pool = await desk({ a: 4, b: 4, c: 4 }, { one: 4, two: 4 });
    const outcomes = await Promise.all(['a', 'b', 'c'].map((name) => pool.line(`pair create ${name} --json`)));
    expect(outcomes.map(({ exit }) => exit).sort((one, other) => one - other)).toEqual([0, 0, 13]);
    expect(new Set(pool.device.pairs().map((pair) => pair.status().secondary.name))).toEqual(new Set(['one', 'two']));
    expect(outcomes.find(({ exit }) => exit === 13)?.err).toContain('no volume of the pool is unused');
  });
});

describe('giving a capacity back', () => {
  it('happens at the release where the setting says so, shows what it takes, and is refused with where it could come from', async () => {
    await using pool = await desk({ db: 30, web: 4 }, { small: 10, large: 20 }, '128M');
    const { engine } = pool.device;
    await pool.line('pair create web large --fit regions');
    await engine.pairWait({ primary: 'web', state: 'duplex', timeoutMs: 30_000 });
    await pool.line('pair release web');
    expect(pool.device.volume('large').info()).toMatchObject({ capacityBytes: 4 * MiB, formerCapacityBytes: 20 * MiB });
    // All that was given away goes to somebody else.
    const cleared = async (): Promise<void> => {
      while (engine.status().store.regions.scrubbing > 0) await new Promise((resolve) => setTimeout(resolve, 2));
    };
    await cleared();
    await pool.line(`volume create other --size ${engine.status().store.regions.unassigned}M`);
    for (const plan of [true, false]) {
      const refused = await failure(engine.poolRestoreSize({ volume: 'large', plan }));
      expect(refused).toMatchObject({
        code: 'REGIONS_MISSING',
        details: { missingRegions: 16, neededRegions: 16, sources: [{ volume: 'small', regions: 10 }] },
      });
    }
    await pool.line('volume delete other --yes');
    expect(await pool.line('pool restore-size large')).toMatchObject({ exit: 0, out: 'volume large is 20 MiB again\n' });

    await pool.line('settings set restoreSizeOnRelease=on fit=regions condition=same');
    await pool.line('pair create db small');
    await engine.pairWait({ primary: 'db', state: 'duplex', timeoutMs: 30_000 });
    expect(pool.device.volume('small').info().capacityBytes).toBe(30 * MiB);
    await writeTo(pool.device.volume('db'), 0, 4096, 1);
    expect(await pool.line('pair release db')).toMatchObject({ exit: 0 });
    expect(pool.device.volume('small').info()).toMatchObject({
      capacityBytes: 10 * MiB,
      formerCapacityBytes: null,
      attribute: 'secondary',
    });
    // Where it cannot be, the release stands, and it is said.
    await pool.line('pair create web large --fit regions');
    expect(await engine.pairRelease({ primary: 'web', plan: true })).toMatchObject({
      steps: expect.arrayContaining([expect.stringContaining('large gets 16 regions')]),
      moves: [{ from: null, to: 'large', regions: 16 }],
    });
    await cleared();
    await pool.line(`volume create other --size ${engine.status().store.regions.unassigned}M`);
    expect(await pool.line('pair release web')).toMatchObject({
      exit: 0,
      out: 'pair web -> large released\n',
      err: expect.stringMatching(/^large keeps its fitted capacity: .*16 of them are missing.*\[REGIONS_MISSING\]/),
    });
    await pool.line('volume delete other --yes');
    expect(await pool.line('pool restore-size large')).toMatchObject({ exit: 0 });
    // A volume that was made larger by fitting loses what is behind its former end.
    await pool.line('settings set restoreSizeOnRelease=off');
    await pool.line('pair create db small');
    await pool.line('pair release db');
    expect(await engine.poolRestoreSize({ volume: 'small', plan: true })).toMatchObject({ regions: 20, destroysBytes: 20 * MiB });
  });
});
