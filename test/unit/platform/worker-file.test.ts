import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { describe, expect, it } from 'vitest';
import { workerFile } from '../../../src/platform/worker-file.ts';

describe('the file of a worker', () => {
  it('is the source here, and a pool can run it', async () => {
    const file = workerFile('platform/program');
    expect(file.filename).toMatch(/src\/platform\/program\.ts$/);
    const pool = new Piscina<string, string>({ ...file, maxThreads: 1 });
    try {
      expect(await pool.run('sh', { name: 'findProgram' })).toMatch(/\/sh$/);
    } finally {
      await pool.destroy();
    }
  });

  it('runs as a bare thread too', async () => {
    const { filename, execArgv } = workerFile('platform/native');
    expect(await once(new Worker(filename, { execArgv }), 'exit')).toEqual([0]);
  });

  it('that is missing is an error', () => {
    expect(() => workerFile('platform/none')).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});
