/**
 * An operator applies a declaration to a real engine: the difference, the change, nothing left to change, and all that
 * stands in its way. The command line runs in this process, on the control socket of a real device; the kill needs real ones.
 */
import { writeFile } from 'node:fs/promises';
import { describe, expect, it, vi } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import type { ApplyView, VolumeView } from '../../src/core/views.ts';
import { openDevice } from '../../src/index.ts';
import type { Device } from '../../src/index.ts';
import { run } from '../support/clients.ts';
import { failure, writeTo } from '../support/pair-device.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';
import { type Ran, runLine } from '../unit/cli/command-line.ts';
import { initialised, MAIN, serving, twinvol } from './cli-process.ts';

const DECLARATION = `
settings:
  condition: same
volumes:
  - { name: db, size: 32M, protected: true }
  - name: web
    size: 16M
  - { name: web-copy, size: 16M, attribute: secondary }
pool:
  - { size: 32M, count: 2, name: spare }
pairs:
  - { primary: db, pace: 15 }
  - { primary: web, secondary: web-copy, fence: data }
groups:
  - name: nightly
    pairs: [db, web]
`;

type Applied = AsyncDisposable & {
  readonly device: Device;
  readonly line: (words: string) => Promise<Ran>;
  /** The path of a file with that text. */
  readonly file: (name: string, text: string) => Promise<string>;
};

const started = async (): Promise<Applied> => {
  const temporary = await temporaryDirectory();
  const store = temporary.path('store');
  const device = await openDevice({ store, create: true, control: true, pvSize: '256M', lanes: 1 });
  return {
    device,
    line: (words) => runLine(words, {}, store),
    file: (name, text) => written(temporary, name, text),
    [Symbol.asyncDispose]: async () => {
      await device.close();
      await temporary[Symbol.asyncDispose]();
    },
  };
};
const written = async (temporary: TemporaryDirectory, name: string, text: string): Promise<string> => {
  await writeFile(temporary.path(name), text);
  return temporary.path(name);
};
/** What a declaration is about; not the clients, and not how far a copy is. */
const everything = ({ engine }: Device): unknown => ({
  volumes: engine.volumeList().map(({ clients: _clients, ...volume }) => volume),
  pairs: engine.pairStatus().map(({ id, primary, secondary, pace, fence }) => ({ id, primary, secondary, pace, fence })),
  groups: engine.groupList(),
  settings: engine.settings(),
});

describe('twinvol apply', () => {
  it('shows the difference, changes it, and finds nothing more to change, in YAML and in JSON', async () => {
    await using applied = await started();
    const { device, line } = applied;
    const file = await applied.file('device.yaml', DECLARATION);
    const empty = everything(device);
    const shown = await line(`apply ${file} --plan`);
    expect(shown.exit).toBe(0);
    expect(shown.out.split('\n')).toEqual(
      expect.arrayContaining([
        '+ volume db: 32 MiB, normal, protected  (line 5)',
        '+ volume spare-2: 32 MiB, secondary  (line 10)',
        '+ pair db -> spare-1 (chosen by the device: same capacity)  (line 12)',
        '~ group nightly: with pair web -> web-copy  (line 16)',
        '11 changes would be made; 0 requirements were met already; nothing was changed',
      ]),
    );
    expect(everything(device)).toEqual(empty);
    const plan = JSON.parse((await line(`apply ${file} --plan --json`)).out) as ApplyView;
    const done = JSON.parse((await line(`apply ${file} --json`)).out) as ApplyView;
    expect(done.changes).toEqual(plan.changes);
    expect(device.engine.pairStatus()).toMatchObject([
      { primary: { name: 'web' }, secondary: { name: 'web-copy' }, fence: 'data', group: 'nightly' },
      { primary: { name: 'db' }, secondary: { name: 'spare-1' }, pace: 15, group: 'nightly' },
    ]);
    const made = everything(device);
    expect((await line(`apply ${file}`)).out).toBe('nothing differs: 8 requirements were met already\n');
    await device.engine.pairWait({ primary: 'db', state: 'duplex', timeoutMs: 30_000 });
    await device.engine.pairSplit({ primary: 'db' });
    const asJson = await applied.file(
      'device.json',
      JSON.stringify({ volumes: [{ name: 'db', size: '32M' }], pairs: [{ primary: 'db' }] }),
    );
    expect(JSON.parse((await line(`apply ${asJson} --json`)).out)).toMatchObject({ plan: false, changes: [], met: 2 });
    expect(everything(device)).toEqual(made);
  });

  it('names everything that cannot be met with its line, and changes nothing', async () => {
    await using applied = await started();
    const { device, line } = applied;
    await line(`apply ${await applied.file('device.yaml', DECLARATION)}`);
    const before = everything(device);
    const file = await applied.file(
      'wrong.yaml',
      'volumes:\n  - { name: db, size: 16M }\n  - { name: extra, size: 8M }\npairs:\n  - primary: extra\n  - { primary: web, secondary: db }\n',
    );
    const refused = await line(`apply ${file}`);
    expect(refused.exit).toBe(13);
    expect(refused.err.split('\n')).toEqual([
      `${file}:2: volume db: size 16M: it has 32 MiB, and a volume cannot be made smaller`,
      expect.stringContaining(`${file}:6: pair web -> db: volume db (1) cannot be the secondary: it is a primary`),
      expect.stringContaining(`${file}:5: pair extra -> (the device chooses): no secondary for extra`),
      `twinvol: 3 requirements of ${file} cannot be met; nothing was changed [UNMET]`,
      expect.stringContaining('remedy:'),
      '',
    ]);
    expect(everything(device)).toEqual(before);
    const two = await applied.file('two.yaml', 'volumes: []\n---\nvolumes: []\n');
    expect(await line(`apply ${two}`)).toMatchObject({
      exit: 64,
      err: expect.stringContaining(`${two}:2:1: a second document begins here`),
    });
    const unknown = await line(`apply ${await applied.file('unknown.yaml', 'volumes: [{ name: 5, sise: 1G }]')} --json`);
    expect(unknown.exit).toBe(64);
    expect(JSON.parse(unknown.err).error).toMatchObject({
      code: 'USAGE',
      details: {
        places: [
          { line: 1, text: expect.stringContaining('volumes.0.name') },
          { line: 1, text: expect.stringContaining('sise') },
        ],
      },
    });
    expect(await line(`apply ${await applied.file('broken.yaml', 'volumes:\n  - { name: x\npairs: 1\n')}`)).toMatchObject({
      exit: 64,
      err: expect.stringMatching(/broken.yaml:3:1: /),
    });
    expect((await line('apply /none.yaml')).exit).toBe(64);
    expect((await line('apply')).exit).toBe(64);
    expect(JSON.parse((await line('apply --schema')).out)).toMatchObject({ title: 'twinvol declaration' });
  });

  it('asks before anything is changed whether somebody uses what it would overwrite', async () => {
    await using applied = await started();
    const { device, line } = applied;
    const copy = await device.createVolume('web-copy', 16 * MiB, { attribute: 'secondary' });
    await using client = await copy.connect();
    await client.write(0, Buffer.alloc(4096, 7));
    const before = everything(device);
    const file = await applied.file('device.yaml', DECLARATION);
    expect((await line(`apply ${file} --plan`)).exit).toBe(0);
    const refused = await line(`apply ${file} --json`);
    expect(refused.exit).toBe(11);
    expect(everything(device)).toEqual(before);
    expect((await client.read(0, 4096)).equals(Buffer.alloc(4096, 7))).toBe(true);
    const { details } = JSON.parse(refused.err).error as { readonly details: { readonly findings: readonly { readonly key: string }[] } };
    const overrides = details.findings.map(({ key }) => `--override ${key}`).join(' ');
    expect(await line(`apply ${file} ${overrides} --reason 'test data'`)).toMatchObject({
      exit: 0,
      out: expect.stringContaining('10 changes made; 1 requirement was met already'),
    });
    await expect(client.read(0, 4096)).rejects.toThrow();
    expect((await line(`apply ${file}`)).out).toMatch(/^nothing differs/);
  });

  it('lets an operator at a terminal decide once for all that would be overwritten', async () => {
    await using applied = await started();
    const { device } = applied;
    for (const name of ['one', 'two']) await device.createVolume(name, 16 * MiB, { attribute: 'secondary' });
    await using _first = await device.volume('one').connect();
    await using _second = await device.volume('two').connect();
    // The device hears of a connection a moment after the client.
    await vi.waitFor(() => expect(device.status().clients).toBe(2), 5000);
    const file = await applied.file(
      'pairs.yaml',
      'volumes: [{ name: a, size: 16M }, { name: b, size: 16M }]\npairs: [primary: a, primary: b]\n',
    );
    const { directory } = device.status().store;
    const no = await runLine(`apply ${file}`, { answers: ['n'] }, directory);
    expect(no).toMatchObject({ exit: 11, asked: [expect.stringContaining('overwrite these volumes')] });
    expect(device.volumes()).toHaveLength(2);
    expect(await runLine(`apply ${file}`, { answers: ['y'] }, directory)).toMatchObject({ exit: 0, asked: [expect.any(String)] });
    expect(device.pairs()).toHaveLength(2);
  });

  it('stops at a change that fails, says what was made, and goes on when it is applied again', async () => {
    await using applied = await started();
    const { device } = applied;
    await device.createVolume('a', 4 * MiB);
    const spare = await device.createVolume('spare', 8 * MiB, { attribute: 'secondary' });
    await writeTo(spare, 0, MiB, 1);
    const declaration = { volumes: [{ name: 'b', size: '4M' }], pairs: [{ primary: 'a', fit: 'regions' as const }] };
    // Somebody takes the chosen volume away between the comparison and the pair.
    const racing = device.engine.apply({ declaration });
    await device.engine.volumeSet({ volume: 'spare', attribute: 'normal' });
    const stopped = await failure(racing);
    expect(stopped).toMatchObject({
      code: 'NOT_A_SECONDARY',
      message: expect.stringContaining('1 of 2 changes were made and stay'),
      details: { made: ['volume b: 4 MiB, normal'] },
    });
    await device.engine.volumeSet({ volume: 'spare', attribute: 'secondary' });
    const [one, two] = await Promise.all([device.engine.apply({ declaration }), device.engine.apply({ declaration })]);
    expect([one.changes.length, two.changes.length]).toEqual([1, 0]);
  });

  it('goes on where it was when the engine was killed in the midst of it', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    const volumes = Array.from({ length: 600 }, (_, index) => `  - { name: v${index}, size: 1M }`).join('\n');
    const file = await written(temporary, 'many.yaml', `volumes:\n${volumes}\n`);
    await initialised(store);
    {
      await using engine = await serving(store);
      const applying = run(process.execPath, [MAIN, 'apply', file], { env: { TWINVOL_STORE: store } });
      let count = 0;
      while (count < 20)
        count = ((await runLine('volume list --json', {}, store).then(({ out }) => JSON.parse(out))) as VolumeView[]).length;
      await engine.end('SIGKILL');
      expect((await applying).status).not.toBe(0);
    }
    await using device = await openDevice({ store, control: true, lanes: 1 });
    const present = device.volumes().length;
    expect(present).toBeGreaterThanOrEqual(20);
    const { changes, met } = JSON.parse((await runLine(`apply ${file} --json`, {}, store)).out) as ApplyView;
    expect([changes.length, met]).toEqual([600 - present, present]);
    expect((await twinvol(['apply', '-', '--json'], { store, input: `volumes:\n${volumes}\n` })).stdout).toContain('"met": 600');
  }, 120_000);
});
