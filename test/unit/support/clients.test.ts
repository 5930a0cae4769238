import { afterEach, describe, expect, it, TestRunner, vi } from 'vitest';
import { hasClient, needClient, run } from '../../support/clients.ts';

const MISSING = 'no-such-client-anywhere';

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('looking up a client', () => {
  it('finds what is installed', () => {
    expect(needClient('sh')).toMatch(/^\/.*\/sh$/);
    expect(hasClient('sh')).toBe(true);
  });

  it('fails in CI where it is missing', () => {
    vi.stubEnv('CI', 'true');
    expect(() => needClient(MISSING)).toThrow(`${MISSING} is not installed`);
    expect(() => hasClient(MISSING)).toThrow(`${MISSING} is not installed`);
  });

  it('skips the running test elsewhere, with a note', () => {
    vi.stubEnv('CI', '');
    expect(hasClient(MISSING)).toBe(false);
    const skip = vi.fn<(note: string) => void>();
    const current = { context: { skip } } as unknown as ReturnType<typeof TestRunner.getCurrentTest>;
    vi.spyOn(TestRunner, 'getCurrentTest').mockReturnValueOnce(current);
    needClient(MISSING);
    expect(skip).toHaveBeenCalledWith(`${MISSING} is not installed`);
  });
});

describe('running a program', () => {
  it('gives its exit status and both outputs', async () => {
    expect(await run('sh', ['-c', 'echo out; echo err >&2; exit 3'])).toEqual({
      status: 3,
      signal: null,
      stdout: 'out\n',
      stderr: 'err\n',
    });
  });

  it('writes its input, also where nobody reads it', async () => {
    expect((await run('cat', [], { input: 'text' })).stdout).toBe('text');
    expect((await run('true', [], { input: Buffer.alloc(1024 ** 2) })).status).toBe(0);
  });

  it('says which signal ended it', async () => {
    expect(await run('sh', ['-c', 'kill -9 $$'])).toMatchObject({ status: null, signal: 'SIGKILL' });
  });

  it('kills it after the time-out, also when a grandchild holds its outputs', async () => {
    const startedAt = performance.now();
    await expect(run('sh', ['-c', 'echo begun; sleep 5 & sleep 5'], { timeoutMs: 200 })).rejects.toThrow(/more than 200 ms\nbegun/);
    expect(performance.now() - startedAt).toBeLessThan(3000);
  });

  it('rejects where the program is not there', async () => {
    await expect(run(MISSING, [])).rejects.toThrow('ENOENT');
  });
});
