/**
 * Hosts, agents and operators as processes: the agent from enrolment to SIGTERM, an operator at the prompt who says no,
 * goes away, or whose terminal dies, scripts that get exit statuses and JSON, and the user's command for warnings.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AuditRecord, HostAdded, HostView, InquiryView, MountView } from '../../src/index.ts';
import { connect, type NbdClient } from '../../src/nbd-client/index.ts';
import { needClient, run } from '../support/clients.ts';
import { eventually } from '../support/fake-agent.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';
import { initialised, MAIN, type Serving, serving } from './cli-process.ts';

let temporary: TemporaryDirectory;
let store: string;
let engine: Serving;
const children: ChildProcess[] = [];

beforeAll(async () => {
  temporary = await temporaryDirectory();
  store = temporary.path('store');
  await initialised(store, ['--pv-size', '1G']);
  engine = await serving(store, ['--on-warning', `cat >> '${temporary.path('warnings')}'`]);
  await engine.json('volume create db --size 16M');
  await engine.json('volume create copy --size 16M --attribute secondary');
  await engine.json('pair create db copy --wait');
  await engine.json('pair split db');
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await engine.end('SIGTERM');
  await temporary[Symbol.asyncDispose]();
});

const uri = async (volume: string): Promise<string> => ((await engine.json(`uri ${volume}`)) as { uri: string }).uri;
const openCopy = async (): Promise<NbdClient> => {
  const client = await connect(await uri('copy'));
  await client.write(0, Buffer.alloc(4096, 9));
  return client;
};
const state = async (): Promise<string> => ((await engine.json('pair status db')) as Array<{ state: string }>)[0]?.state ?? 'simplex';

describe('an agent as a process', () => {
  it('is enrolled, answers, reports, and ends with SIGTERM', async () => {
    const { token } = (await engine.json('host add web1')) as HostAdded;
    expect((await engine.json('host list')) as HostView[]).toMatchObject([{ name: 'web1', agent: null }]);
    const silent = await engine.line('inquiry copy --json');
    expect(silent.status).toBe(12);
    expect(JSON.parse(silent.stdout) as InquiryView).toMatchObject({ clear: false, findings: [{ key: 'no-answer:web1' }] });

    const tokenFile = temporary.path('token');
    writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
    const place = `unix:${store}/agents.sock`;
    const agent = spawn(
      process.execPath,
      [MAIN, 'agent', '--host', 'web1', '--token-file', tokenFile, '--control', place, '--scope', 'namespace'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    children.push(agent);
    let said = '';
    agent.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    agent.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    await eventually(() => said.includes('connected to the device'), 'the agent is connected');
    const client = await openCopy();
    const seen = await engine.line('inquiry copy --json');
    expect(seen.status).toBe(11);
    // Everything that the agent cannot look into here is a doubt; the connection is a fact.
    const [finding] = (JSON.parse(seen.stdout) as InquiryView).findings;
    expect(['open', 'client']).toContain(finding?.kind);
    await client.disconnect();
    await eventually(async () => (await engine.line('inquiry copy')).status !== 11, 'nobody is connected');
    expect(((await engine.json('mounts --all')) as MountView[]).every(({ host }) => host === 'web1')).toBe(true);
    expect((await engine.line('mounts')).status).toBe(0);

    agent.kill('SIGTERM');
    const [status] = (await once(agent, 'exit')) as [number | null];
    expect(status).toBe(0);
    await eventually(async () => ((await engine.json('host show web1')) as HostView).agent === null, 'the agent is gone');
    expect((await engine.line('host remove web1')).stdout).toContain('nobody asks it any more');
  });

  it('with a wrong token, without one, or with a file that is not there says so', async () => {
    const wrong = async (...words: string[]): Promise<string> =>
      (await run(process.execPath, [MAIN, 'agent', '--host', 'web1', ...words])).stderr;
    expect(await wrong('--control', `unix:${store}/agents.sock`)).toContain('--token-file is missing');
    expect(await wrong('--control', 'somewhere')).toContain('is no place of a device');
    expect(await wrong('--control', 'tls:localhost:1')).toContain('--tls-cert is missing');
    expect(await wrong('--control', `unix:${store}/agents.sock`, '--token-file', temporary.path('none'))).toContain('holds no token');
  });
});

describe('a script', () => {
  it('gets exit status 11 and the facts as JSON; an override names the finding and gives a reason, and is on record', async () => {
    const client = await openCopy();
    const refused = await engine.line('pair resync db --json');
    expect(refused.status).toBe(11);
    const { error } = JSON.parse(refused.stderr) as {
      error: { code: string; details: { findings: Array<{ key: string }>; destroys: object[] } };
    };
    expect(error).toMatchObject({ code: 'MOUNTED', details: { destroys: [{ volumeName: 'copy', regions: 1, bytes: 65_536 }] } });
    const key = error.details.findings[0]?.key ?? '';
    expect((await engine.line(`pair resync db --override ${key}`)).status).toBe(64);
    expect((await engine.line('pair create --no-inquiry db')).status).toBe(64);
    expect(await state()).toBe('split');
    const went = await run(process.execPath, [
      MAIN,
      '--store',
      store,
      'pair',
      'resync',
      'db',
      '--override',
      key,
      '--reason',
      'test data',
      '--wait',
    ]);
    expect(went.status).toBe(0);
    await client[Symbol.asyncDispose]();
    const audit = (await engine.json('audit')) as AuditRecord[];
    const override = audit.find((record) => record.kind === 'override');
    expect(override).toMatchObject({ key, reason: 'test data', by: expect.stringMatching(/./) });
    expect(audit.findLast((record) => record.kind === 'decision' && record.decision === 'refused')).toMatchObject({
      by: expect.stringMatching(/./),
    });
    expect((await engine.line('audit')).stdout).toMatch(/overridden .*because: test data/);
    const later = (await engine.json(`audit --since ${override?.seq}`)) as AuditRecord[];
    expect(later.map(({ kind }) => kind)).toEqual(['outcome']);
    await engine.json('pair split db');
  });

  it('has every warning told to the command that the engine was started with', async () => {
    const client = await openCopy();
    expect((await engine.line('pair resync db')).status).toBe(11);
    await client.disconnect();
    const told = (): object[] =>
      readFileSync(temporary.path('warnings'), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as object);
    await eventually(() => told().length >= 2, 'the command was run');
    expect(told().at(-1)).toMatchObject({
      kind: 'warning',
      object: 'inquiry',
      data: { code: 'MOUNTED', command: 'pair resync db -> copy' },
    });
  });
});

describe('an operator at a terminal', () => {
  /** Runs a line on a terminal of its own (util-linux's script). */
  const onTerminal = async (words: string, typed: string): Promise<string> => {
    const command = `'${process.execPath}' '${MAIN}' --store '${store}' ${words}; echo "status $?"`;
    return (await run(needClient('script'), ['-qec', command, '/dev/null'], { input: typed, timeoutMs: 30_000 })).stdout.replaceAll(
      '\r',
      '',
    );
  };

  it('sees each finding and what would be lost; "no" is the default, and it says what did not happen', async () => {
    const client = await openCopy();
    const said = await onTerminal('pair resync db copy', '\n');
    expect(said).toMatch(/WARNING:.* NBD connection \d+ \(unix\) to copy is open/);
    expect(said).toMatch(/going on destroys what was written on copy since the split: 64 KiB in 1 region, first at \d{4}-/);
    expect(said).toContain('resync pair db -> copy anyway, destroying 64 KiB on copy? [y/N]');
    expect(said).toContain('pair db -> copy was not resynced');
    expect(said).toContain('status 11');
    expect(await state()).toBe('split');
    await client.write(0, Buffer.alloc(512, 1));
    await client.disconnect();
  });

  it('[terminal-dies] whose terminal dies at the prompt leaves nothing held and nothing changed', async () => {
    const client = await openCopy();
    const command = `'${process.execPath}' '${MAIN}' --store '${store}' pair resync db`;
    const terminal = spawn(needClient('script'), ['-qefc', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
    children.push(terminal);
    let shown = '';
    terminal.stdout.setEncoding('utf8').on('data', (text: string) => (shown += text));
    await eventually(() => shown.includes('[y/N]'), 'the prompt');
    process.kill(-(terminal.pid ?? 0), 'SIGKILL');
    await once(terminal, 'exit');
    await client.write(4096, Buffer.alloc(4096, 4));
    expect((await client.read(4096, 4096)).every((byte) => byte === 4)).toBe(true);
    expect(await state()).toBe('split');
    await client.disconnect();
    await eventually(async () => ((await engine.json('client list')) as unknown[]).length === 0, 'the connection is gone');
    expect((await engine.line('pair resync db --wait --timeout 20s')).status).toBe(0);
    await engine.json('pair split db');
  });

  it('who says yes goes on with what was shown', async () => {
    const client = await openCopy();
    expect(await onTerminal('pair resync db copy', 'y\n')).toContain('status 0');
    await expect(client.read(0, 512)).rejects.toThrow();
    await client[Symbol.asyncDispose]();
    const decisions = ((await engine.json('audit')) as AuditRecord[]).filter((record) => record.kind === 'decision');
    expect(decisions.at(-1)).toMatchObject({ decision: 'consented', by: expect.stringMatching(/./) });
    expect((await engine.line('pair wait db --state duplex --timeout 20s')).status).toBe(0);
    await engine.json('pair split db');
  });
});

it('the times of writes on a split secondary are known after an orderly restart; after a crash the last one is not', async () => {
  const client = await openCopy();
  await client.disconnect();
  const plan = async () =>
    (
      (await engine.json('pair resync db --plan')) as {
        destroys: Array<{ bytes: number; firstAtMs: number | null; lastAtMs: number | null }>;
      }
    ).destroys[0];
  const before = await plan();
  expect(before).toMatchObject({ bytes: 65_536, firstAtMs: expect.any(Number), lastAtMs: expect.any(Number) });
  await engine.end('SIGTERM');
  engine = await serving(store);
  expect(await plan()).toEqual(before);
  await engine.end('SIGKILL');
  engine = await serving(store);
  expect(await plan()).toMatchObject({ firstAtMs: before?.firstAtMs, lastAtMs: null });
});
