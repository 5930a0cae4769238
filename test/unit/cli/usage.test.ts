/** Command lines that are wrong, help, errors for people and for programs, completion. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ALIAS_TABLE } from '../../../src/cli/alias-flags.ts';
import { COMMAND_TABLE } from '../../../src/cli/command-table.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { pairView, volumeView } from '../control/scripted-engine.ts';
import { device, runLine } from './command-line.ts';

const WRONG: ReadonlyArray<readonly [string, string]> = [
  ['volum', 'Did you mean volume?'],
  ['nonsense', "unknown command 'nonsense'"],
  ['pair', 'twinvol pair needs what to do: one of create, status'],
  ['pair creat db', 'Did you mean create?'],
  ['pair create', "missing required argument 'PRIMARY'"],
  ['pair create db --jsn', 'Did you mean --json?'],
  ['pair create a b c', 'too many arguments'],
  ['pair create a --pace 16', '"16" is not a pace'],
  ['pair create a --fence maybe', '"maybe" is not a fence level'],
  ['pair wait a', "required option '--state <STATE>' not specified"],
  ['pair wait a --state duplx', 'did you mean duplex?'],
  ['pair wait a --state duplex --timeout soon', '"soon" is not a duration'],
  ['pair create a --timeout 60s', 'without --wait nothing is waited for'],
  ['pair resync a --timeout 60s', 'without --wait nothing is waited for'],
  ['pair split a --at 02:00 --timeout 60s', 'without --wait nothing is waited for'],
  ['group split g --timeout 60s', 'without --wait nothing is waited for'],
  ['volume create x', "required option '--size <SIZE>' not specified"],
  ['volume create x --size', 'argument missing'],
  ['volume create x --size 5Q', '"5Q" is not a size'],
  ['fault add x --error read --range 5', '"5" is not a range'],
  ['fault add x --error read --range 5-5', 'is empty'],
  ['fault add x --error read --rate 2', '"2" is not a rate'],
  ['pair resync a --override mounted:x', '--override needs a reason'],
  ['settings set fit', 'sets nothing'],
  ['explain STORE_FUL', 'did you mean STORE_FULL?'],
  ['status extra', 'too many arguments'],
  ['init', "missing required argument 'DIR'"],
  ['init d --region-size big', '"big" is not a size'],
  ['serve --lanes 0', '"0" is not a number of lanes'],
  ['serve --log-level loud', '"loud" is not a log level'],
  ['serve --nbd-tcp h:1 --tls-cert c', 'TLS needs a certificate and its key'],
  ['serve --tls-cert c --tls-key k', 'no --nbd-tcp is given'],
  ['bench', "missing required argument 'URI'"],
  ['bench nbd://h/x --preset oltq', 'did you mean oltp?'],
  ['bench nbd://h/x --rw sideways', '"sideways" is not a kind of workload'],
  ['bench nbd://h/x --bs 64M', '"64M" is not a block size'],
  ['bench nbd://h/x --depth 0', '"0" is not a depth'],
  ['bench nbd://h/x --runtime 1ms', '"1ms" is not a runtime'],
  ['bench nbd://h/x --size 1M --range 1M-2M', 'say the same thing'],
  ['bench nbd://h/x --preset mixed --bs 4K', 'has 3 streams'],
  ['bench nbd://h/x --preset backup --verify', 'does not write'],
  ['bench nbd://h/x --mix 30', 'no mix of reads and writes'],
  ['bench nbd://h/x --fua', 'the workload only reads'],
  ['bench nbd://h/x --rw read --flush-every 8', 'the workload only reads'],
  ["bench ''", 'no export is named'],
  ['bench nbd://h/x --rounds 3', '--rounds is for --compare'],
  ['bench nbd://h/x --verify --compare nbd://h/y', 'do not go together'],
  ['paircreate', 'needs -d PRIMARY'],
  ['paircreate -d a -q', 'no flag -q'],
  ['pairevtwait -d a', 'needs -s STATE and -t SECONDS'],
];

describe('usage', () => {
  it.each(WRONG)('twinvol %s exits 64 and says why', async (words, part) => {
    const { exit, out, err } = await runLine(words, {}, '/nowhere');
    expect({ exit, out }).toEqual({ exit: 64, out: '' });
    expect(err).toContain(part);
    expect(err.split('\n').filter((line) => line.startsWith('twinvol:'))).toHaveLength(1);
    const json = JSON.parse((await runLine(`${words} --json`, {}, '/nowhere')).err);
    expect(json.error).toMatchObject({
      code: expect.stringMatching(/^(USAGE|SIZE_INVALID)$/),
      exit: 64,
      remedy: expect.stringMatching(/./),
      details: {},
    });
  });

  it('asks for a command where there is none', async () => {
    const { exit, err } = await runLine('');
    expect(exit).toBe(64);
    expect(err).toContain('twinvol needs a command');
  });

  it('has a summary for every command, and examples that are command lines', async () => {
    const top = await runLine('--help');
    expect(top.exit).toBe(0);
    for (const { name, isHidden } of COMMAND_TABLE) expect(top.out.includes(`\n  ${name} `)).toBe(isHidden !== true);
    const leaves: string[] = [];
    for (const { name } of COMMAND_TABLE.filter(({ isHidden }) => isHidden !== true)) {
      const { exit, out } = await runLine(`${name} --help`);
      expect(exit).toBe(0);
      const subcommands = [...(/\nCommands:\n([\s\S]*?)(?:\n\n|$)/.exec(out)?.[1] ?? '').matchAll(/^ {2}(\S+)/gm)].map(
        ([, word]) => `${name} ${word}`,
      );
      leaves.push(...(subcommands.length > 0 ? subcommands.filter((word) => !word.endsWith(' help')) : [name]));
    }
    expect(leaves.length).toBeGreaterThan(40);
    for (const leaf of leaves) {
      const { out } = await runLine(`${leaf} --help`);
      expect(out, leaf).toMatch(/\nExamples:\n {2}\$ .*twinvol /);
      expect(out, leaf).toContain('--store');
    }
  });

  it('parses every example of its own help', async () => {
    const { line } = await device({});
    const examples = new Set<string>();
    for (const { name } of COMMAND_TABLE) {
      const { out } = await runLine(`${name} --help`);
      const subcommands = [...out.matchAll(/^ {2}(\w[\w-]*) {2,}/gm)].map(([, word]) => `${name} ${word} --help`);
      for (const help of [`${name} --help`, ...subcommands]) {
        for (const [, example] of (await runLine(help)).out.matchAll(/^ {2}\$ twinvol (.*)$/gm)) examples.add(example ?? '');
      }
    }
    expect(examples.size).toBeGreaterThan(60);
    for (const example of examples) {
      if (/^(init|serve|store|completion|bench|apply|agent|host trust) /.test(example)) continue;
      const { err, exit } = await line(`${example.replaceAll('"', "'")} --json`);
      if (exit !== 0)
        expect(JSON.parse(err).error, example).toMatchObject({ code: 'INTERNAL', message: expect.stringContaining('is not scripted') });
    }
  });

  it('tells the version', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
    expect(await runLine('--version')).toMatchObject({ exit: 0, out: `${version}\n` });
    expect(JSON.parse((await runLine('--version --json')).out)).toEqual({ version });
  });

  it('says which store is missing, and that nobody answers there', async () => {
    expect(await runLine('status')).toMatchObject({ exit: 64, err: expect.stringContaining('TWINVOL_STORE') });
    const dead = await runLine('status --json', {}, '/nonexistent');
    expect(dead.exit).toBe(2);
    expect(JSON.parse(dead.err).error).toMatchObject({ code: 'ENGINE_UNREACHABLE', details: { path: '/nonexistent/control.sock' } });
    const { store } = await device({ volumeList: () => [] });
    expect(await runLine(`--store ${store} volume list`)).toMatchObject({ exit: 0 });
    expect(await runLine(`volume list --store=${store}`)).toMatchObject({ exit: 0 });
  });

  it('prints the errors of the engine with code and remedy, and their details as JSON', async () => {
    const { line } = await device({
      volumeShow: (volume) => {
        throw new TwinvolError('VOLUME_NOT_FOUND', `there is no volume ${volume}`, { details: { volume } });
      },
      volumeList: () => {
        throw new TypeError('boom');
      },
    });
    expect(await line('volume show x')).toMatchObject({
      exit: 10,
      out: '',
      err: 'twinvol: there is no volume x [VOLUME_NOT_FOUND]\n  remedy: twinvol volume list shows what there is\n',
    });
    expect(JSON.parse((await line('volume show x --json')).err)).toEqual({
      error: {
        code: 'VOLUME_NOT_FOUND',
        message: 'there is no volume x',
        remedy: 'twinvol volume list shows what there is',
        details: { volume: 'x' },
        exit: 10,
      },
    });
    expect(await line('volume list')).toMatchObject({ exit: 2, err: expect.stringContaining('[INTERNAL]') });
  });
});

describe('completion', () => {
  const complete = async (words: string): Promise<string[]> => {
    const { line } = await device({
      volumeList: () => [volumeView(1, 'db'), volumeView(2, 'db-copy'), volumeView(3, 'web')],
      groupList: () => [{ name: 'nightly', pairs: [] }],
    });
    return (await line(`__complete bash -- ${words}`)).out.split('\n').filter((word) => word !== '');
  };

  it('knows commands, options, values, and the names of the device', async () => {
    expect(await complete('vol')).toEqual(['volume']);
    expect(await complete("pair 're'")).toEqual(['resync', 'restore', 'release']);
    expect(await complete("pair create ''")).toEqual(['db', 'db-copy', 'web']);
    expect(await complete('pair create db db')).toEqual(['db', 'db-copy']);
    expect(await complete("pair wait db --state 'sp'")).toEqual(['split']);
    expect(await complete('pair create --fe')).toEqual(['--fence']);
    expect(await complete("group show ''")).toEqual(['nightly']);
    expect(await complete("pair split --group ''")).toEqual(['nightly']);
    expect(await complete("--store x volume 'sh'")).toEqual(['show']);
    expect(await complete("__'")).toEqual([]);
  });

  it('is silent without a device', async () => {
    expect(await runLine("__complete bash -- pair create ''", {}, '/nowhere')).toMatchObject({ exit: 0, out: '', err: '' });
    for (const shell of ['bash', 'zsh', 'fish'])
      expect((await runLine(`completion ${shell}`)).out).toContain(`twinvol __complete ${shell} --`);
  });
});

describe('aliases', () => {
  it('have a page that says what differs', async () => {
    const overview = [
      '| command | the same as | what differs, and exit statuses of its own |',
      '| --- | --- | --- |',
      ...ALIAS_TABLE.map(
        ({ name, ours, differs }) => `| \`${name}\` | \`twinvol ${ours.replaceAll(', ', '`, `twinvol ')}\` | ${differs.join(' ')} |`,
      ),
      '',
    ];
    const rows = ALIAS_TABLE.flatMap((spec) => [
      `## ${spec.name}`,
      '',
      '| flag | what it does here |',
      '| --- | --- |',
      ...spec.flags.map(({ flag, value, means }) => `| \`${flag}${value === null ? '' : ` ${value}`}\` | ${means} |`),
      '',
      ...spec.examples.map((example) => `    twinvol ${example}`),
      '',
    ]);
    const page = [
      '# The paircreate family',
      '',
      '<!-- Generated from src/cli/alias-flags.ts by test/unit/cli/usage.test.ts (npx vitest run test/unit/cli -u); do not edit. -->',
      '',
      'For scripts that speak to arrays in this manner. Volumes are named by name or number; there is no configuration file of devices.',
      'States: SMPL simplex, COPY duplex-pending, PAIR duplex, PSUS split (SSUS for the secondary), PSUE suspended. Errors have the codes',
      'and exit statuses of twinvol. Flags of the family that mean something else here are refused, never ignored.',
      '',
      'Scripts that call `paircreate` and not `twinvol paircreate` find it under a link of that name:',
      '',
      '    for name in paircreate pairsplit pairresync pairdisplay pairvolchk pairevtwait; do',
      '      ln -s "$(command -v twinvol)" ~/bin/$name',
      '    done',
      '',
      ...overview,
      ...rows,
    ].join('\n');
    await expect(page).toMatchFileSnapshot('../../../src/cli/ALIASES.md');
  });

  it('translate to the commands of the device', async () => {
    const calls: unknown[] = [];
    const note =
      <Result>(name: string, result: Result) =>
      async (input: unknown): Promise<Result> => {
        calls.push([name, input]);
        return result;
      };
    const pair = pairView({ group: 'nightly' });
    const { line } = await device({
      pairCreate: note('create', pairView({ state: 'duplex-pending', copy: 'initial' })),
      groupAdd: note('add', { name: 'nightly', pairs: [1] }),
      groupSplit: note('groupSplit', [pair]),
      pairSplit: note('split', pairView({ state: 'split' })),
      pairRelease: note('release', { released: pair }),
      pairRestore: note('restore', pairView({ state: 'duplex-pending', copy: 'restore' })),
      pairStatus: () => [pair],
      groupList: () => [{ name: 'nightly', pairs: [1] }],
    });
    expect(await line('paircreate -g nightly -d db:db-copy -vl -c 15 -f data')).toMatchObject({ exit: 0, out: 'db -> db-copy COPY\n' });
    expect(await line('pairsplit -g nightly')).toMatchObject({ exit: 0 });
    expect(await line('pairsplit db')).toMatchObject({ exit: 0, out: 'db -> db-copy PSUS\n' });
    expect(await line('pairsplit -d db -S')).toMatchObject({ exit: 0, out: 'db -> db-copy SMPL\n' });
    expect(await line('pairresync -g nightly -restore -c 3')).toMatchObject({ exit: 0 });
    expect(calls).toEqual([
      ['create', { primary: 'db', secondary: 'db-copy', pace: 15, fence: 'data', consent: { by: 'op' } }],
      ['add', { name: 'nightly', primary: 1, secondary: 2 }],
      ['groupSplit', { name: 'nightly' }],
      ['split', { primary: 1, secondary: 2 }],
      ['release', { primary: 1, secondary: 2, consent: { by: 'op' } }],
      ['restore', { primary: 1, secondary: 2, pace: 3, consent: { by: 'op' } }],
    ]);
    expect(await line('paircreate -d db -vr')).toMatchObject({ exit: 10, err: expect.stringContaining('NOT_SUPPORTED') });
    calls.length = 0;
    for (const words of ['paircreate -g weekly -d db', 'pairsplit -g weekly -S', 'pairvolchk -g weekly', 'pairevtwait -g weekly -nowait']) {
      expect(await line(words)).toMatchObject({ exit: 10, err: expect.stringContaining('GROUP_NOT_FOUND') });
    }
    expect(calls).toEqual([]);
  });

  it('give the exit statuses of the family', async () => {
    const { line } = await device({
      pairStatus: () => [pairView({ state: 'split', group: 'g' })],
      groupList: () => [{ name: 'g', pairs: [1] }],
      volumeShow: (ref) => volumeView(9, String(ref)),
      pairWait: async () => {
        throw new TwinvolError('TIMEOUT', 'too late');
      },
    });
    expect((await line('pairvolchk -d db')).exit).toBe(2);
    expect((await line('pairvolchk -d db-copy')).exit).toBe(3);
    expect((await line('pairvolchk -d other')).exit).toBe(1);
    expect((await line('pairvolchk -d db -ss')).exit).toBe(24);
    expect((await line('pairvolchk -d db-copy -ss')).exit).toBe(34);
    expect((await line('pairvolchk -d other -ss')).exit).toBe(11);
    expect((await line('pairevtwait -g g -nowait')).exit).toBe(4);
    expect((await line('pairevtwait -d db -s pair -t 1')).exit).toBe(233);
    expect((await line('pairdisplay -fc')).out).toBe(
      [
        'Group  PairVol  LDEV#  P/S    Status  Fence    %  P-LDEV#',
        'g      db           1  P-VOL  PSUS    NEVER  100        2',
        'g      db-copy      2  S-VOL  SSUS    NEVER  100        1',
        '',
      ].join('\n'),
    );
  });
});
