/** The main thread's end of a worker: what a worker said before it died still counts, and nobody waits for it. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { WorkerLink } from '../../../src/data/worker-link.ts';

type To = { readonly type: 'ask'; readonly id: number } | { readonly type: 'end' };
type From =
  | { readonly type: 'news'; readonly number: number }
  | { readonly type: 'answer'; readonly id: number; readonly value: unknown; readonly error?: string };

const SOURCE = `
const { workerData, parentPort } = require('node:worker_threads');
const { port } = workerData;
port.on('message', (message) => {
  if (message.type === 'ask' && message.id < 3) port.postMessage({ type: 'answer', id: message.id, value: message.id * 10, ...(message.id === 2 ? { error: 'EADDRINUSE' } : {}) });
  if (message.type === 'end') {
    for (let number = 1; number <= 3; number += 1) port.postMessage({ type: 'news', number });
    process.exit(7);
  }
});`;

const start = (onNews: (number: number) => void): { link: WorkerLink<To, From>; worker: Worker } => {
  const link = new WorkerLink<To, From>(1, (message) => onNews(message.number));
  const worker = new Worker(SOURCE, { eval: true, workerData: { port: link.remotePort }, transferList: [link.remotePort] });
  return { link, worker };
};

describe('a link to a worker', () => {
  it('gives each question its answer, and an error as one', async () => {
    const { link, worker } = start(() => {});
    expect(await link.ask<number>((id) => ({ type: 'ask', id }))).toBe(10);
    await expect(link.ask((id) => ({ type: 'ask', id }))).rejects.toMatchObject({ code: 'STORE_IO' });
    link.close();
    await worker.terminate();
  });

  it('passes on what was said before the end, answers nobody for ever, and takes no more', async () => {
    const news: number[] = [];
    const { link, worker } = start((number) => news.push(number));
    await link.ask((id) => ({ type: 'ask', id }));
    await link.ask((id) => ({ type: 'ask', id })).catch(() => undefined);
    const unanswered = link.ask((id) => ({ type: 'ask', id }));
    link.send({ type: 'end' });
    await new Promise((resolve) => worker.once('exit', resolve));
    link.close();
    link.close();
    expect(news).toEqual([1, 2, 3]);
    expect(await unanswered).toBeUndefined();
    expect(await link.ask((id) => ({ type: 'ask', id }))).toBeUndefined();
    link.send({ type: 'end' });
  });
});
