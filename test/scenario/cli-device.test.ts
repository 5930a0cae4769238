/** An operator at the command line, with a real engine: from nothing to a pair and back, refusals, and ends of all kinds. */
import { existsSync, statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { EventView, PairView, StatusView, VolumeView } from '../../src/core/views.ts';
import { run } from '../support/clients.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { initialised, MAIN, serving, twinvol } from './cli-process.ts';

describe('an operator at the command line', () => {
  it('makes a store, volumes and a pair, splits, resyncs, releases and deletes', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    const made = await twinvol(['init', store, '--region-size', '256K', '--pv-size', '1G', '--json']);
    expect(JSON.parse(made.stdout)).toMatchObject({ directory: store, uuid: expect.stringMatching(/-/) });
    await using engine = await serving(store);
    expect(engine.banner).toMatch(/^twinvol \S+: store .*lanes.*lock.*$/m);
    expect(engine.banner).toMatch(/^ready nbd\+unix:\S+ control \S+control\.sock$/m);
    expect(statSync(temporary.path('store', 'control.sock')).mode & 0o777).toBe(0o600);

    expect((await engine.line('volume create db --size 64M')).stdout).toMatch(/^volume db created: number \d+, 64 MiB, nbd\+unix:/);
    await engine.json('volume create spare --size 64M --attribute secondary');
    const uri = (await engine.line('uri db')).stdout.trim();
    expect((await engine.json('volume show db')) as VolumeView).toMatchObject({ name: 'db', uri, inUse: 'invalid' });
    expect(await engine.json('pool candidates db')).toMatchObject([{ name: 'spare', fit: 'same', candidate: true }]);

    expect((await engine.json('pair create db --plan')) as object).toMatchObject({ plan: true });
    expect(await engine.json('pair status')).toEqual([]);
    expect((await engine.line('pair create db --wait --timeout 60s')).stdout).toBe('pair db -> spare is duplex\n');
    expect((await engine.line('pair split db')).stdout).toBe('pair db -> spare split\n');
    expect((await engine.json('pair status db')) as PairView[]).toMatchObject([
      {
        state: 'split',
        copyPointer: { percent: expect.any(Number), region: expect.any(Number), regions: expect.any(Number) },
        rateBytesPerSecond: null,
        etaMs: null,
      },
    ]);
    expect(await engine.line('pair resync db --wait')).toMatchObject({ status: 0, stdout: 'pair db -> spare is duplex\n' });
    expect((await engine.line('pair wait db spare --state duplex --timeout 5s')).stdout).toBe('pair db -> spare is duplex\n');
    expect((await engine.json('status')) as StatusView).toMatchObject({ volumes: 2, pairs: { duplex: 1 } });
    expect((await engine.line('pair release db spare --then normal')).status).toBe(0);
    expect((await engine.line('pair wait db spare --state simplex --timeout 5s')).status).toBe(0);
    expect((await engine.line('volume delete spare')).stdout).toBe('volume spare deleted\n');
    expect(await engine.json('volume list')).toMatchObject([{ name: 'db', paired: false }]);

    const events = (await engine.line('events --json')).stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as EventView);
    expect(events.every(({ kind }) => kind === 'exists')).toBe(true);
    expect(events.map(({ object }) => object)).toContain('volume');
    expect(await engine.end('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(existsSync(temporary.path('store', 'control.sock'))).toBe(false);
    expect(await twinvol(['store', 'check', store])).toMatchObject({ status: 0, stdout: expect.stringContaining('the store is sound') });
  });

  it('is refused with the exit status that the catalogue says, and nothing changes', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initialised(store);
    await using engine = await serving(store);
    expect((await twinvol(['init', store])).status).toBe(10);
    const second = await twinvol(['serve', '--store', store, '--json']);
    expect(second.status).toBe(10);
    expect(JSON.parse(second.stderr).error).toMatchObject({ code: 'STORE_LOCKED', message: expect.stringContaining(String(engine.pid)) });
    expect((await twinvol(['store', 'check', store])).status).toBe(10);

    await engine.json('volume create a --size 16M');
    const statusOf = async (words: string): Promise<number | null> => (await engine.line(words)).status;
    expect(await statusOf('volume create a --size 16M')).toBe(10);
    expect(await statusOf('volume create b --size 1000')).toBe(64);
    expect(await statusOf('volume create 12 --size 16M')).toBe(64);
    expect(await statusOf('volume show nothing')).toBe(10);
    expect(await statusOf('pair create a')).toBe(13);
    expect(await statusOf('pair split a')).toBe(10);
    await engine.json('volume create s --size 16M --attribute secondary');
    await engine.json('pair create a s --wait');
    expect(await statusOf('pair resync a')).toBe(10);
    expect(await statusOf('pair wait a --state split --timeout 200ms')).toBe(1);
    expect(await statusOf('volume delete s')).toBe(10);
    expect(await statusOf('client end 99')).toBe(10);
    expect(await statusOf('events --since 5')).toBe(3);
    expect(await engine.json('pair status')).toMatchObject([{ state: 'duplex' }]);
    expect((await twinvol(['serve', '--store', temporary.path('none')])).status).toBe(2);
    expect((await twinvol(['store', 'check', temporary.path('none')])).status).toBe(2);
  });

  it('finds everything again after the engine was killed, behind the socket that it left', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initialised(store);
    {
      await using engine = await serving(store);
      await engine.json('volume create a --size 16M');
      await engine.json('volume create s --size 16M --attribute secondary');
      await engine.json('pair create a --wait');
      expect(await engine.end('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
      const dead = await engine.line('status --json');
      expect(dead.status).toBe(2);
      expect(JSON.parse(dead.stderr).error).toMatchObject({ code: 'ENGINE_UNREACHABLE', details: { cause: 'ECONNREFUSED' } });
    }
    await using again = await serving(store);
    expect((await again.line('pair wait a --state duplex --timeout 30s')).status).toBe(0);
    expect(await again.json('volume list')).toMatchObject([{ name: 'a' }, { name: 's' }]);
  });

  it('follows events while others work, and leaves quietly when its reader does', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initialised(store);
    await using engine = await serving(store);
    const snapshot = (await engine.line('events --json')).stdout.trimEnd().split('\n');
    const { seq } = JSON.parse(snapshot.at(-1) ?? '') as EventView;
    const reader = `'${process.execPath}' '${MAIN}' events --follow --json --since ${seq} --store '${store}' | grep -m1 '"create".*late'`;
    const following = run('bash', ['-o', 'pipefail', '-c', reader], { timeoutMs: 30_000 });
    await engine.json('volume create late --size 16M');
    // Lines after it, so that the pipe is written once more after its reader has gone, however late the reader comes.
    let hasEnded = false;
    const ended = (): void => {
      hasEnded = true;
    };
    following.then(ended, ended);
    for (let name = 'late'; !hasEnded; ) {
      const next = name === 'late' ? 'later' : 'late';
      await engine.json(`volume rename ${name} ${next}`);
      name = next;
    }
    const { status, stdout, stderr } = await following;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const event = JSON.parse(stdout) as EventView;
    expect(event).toMatchObject({ kind: 'create', object: 'volume', seq: expect.any(Number) });
    const resumed = await engine.line(`events --json --since ${event.seq}`);
    expect(JSON.parse(resumed.stdout.split('\n')[0] ?? '')).toMatchObject({ seq: event.seq + 1 });
  });
});

describe('an operator at a terminal', () => {
  const onTerminal = async (store: string, words: string, typed: string): Promise<string> => {
    const command = `'${process.execPath}' '${MAIN}' --store '${store}' ${words}; echo "status $?"`;
    return (await run('script', ['-qec', command, '/dev/null'], { input: typed, timeoutMs: 30_000 })).stdout.replaceAll('\r', '');
  };

  it('is asked before a volume is deleted, and "no" is the default', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initialised(store);
    await using engine = await serving(store);
    await engine.json('volume create a --size 16M');
    const no = await onTerminal(store, 'volume delete a', '\n');
    expect(no).toContain('delete volume a (16 MiB) and its data? [y/N]');
    expect(no).toContain('volume a was not deleted');
    expect(no).toContain('status 10');
    expect(await onTerminal(store, 'volume delete a', 'y\n')).toContain('status 0');
    expect(await engine.json('volume list')).toEqual([]);
  });

  it('gets completions from bash, with the names of the volumes', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initialised(store);
    await using engine = await serving(store);
    await engine.json('volume create apple --size 16M');
    await engine.json('volume create apricot --size 16M');
    const script = `
      twinvol() { '${process.execPath}' '${MAIN}' "$@"; }
      export TWINVOL_STORE='${store}'
      source <(twinvol completion bash)
      complete_at() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _twinvol; echo "\${COMPREPLY[@]}"; }
      complete_at twinvol pair cr
      complete_at twinvol pair create ap`;
    expect((await run('bash', ['-c', script])).stdout).toBe('create\napple apricot\n');
  });
});
