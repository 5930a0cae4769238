/** The event log: numbers, snapshots, resuming, slow and ended readers. */
import { describe, expect, it } from 'vitest';
import { EventLog } from '../../../src/core/event-log.ts';
import type { EventView } from '../../../src/core/views.ts';

const START = 1_000;
const makeLog = (kept?: number): EventLog => new EventLog(() => START, kept);

const readAll = async (events: AsyncIterable<EventView>): Promise<EventView[]> => {
  const list: EventView[] = [];
  for await (const event of events) list.push(event);
  return list;
};

describe('event log', () => {
  it('numbers events one after the other from the time of its start', () => {
    const log = makeLog();
    expect(log.lastSeq).toBe(START - 1);
    expect(log.append('create', 'volume', 1, { name: 'a' }).seq).toBe(START);
    expect(log.append('change', 'volume', 1).seq).toBe(START + 1);
    expect(log.since(START)).toMatchObject([{ seq: START + 1, id: '1', kind: 'change' }]);
    expect(log.since(START + 1)).toEqual([]);
  });

  it('says gone for what the ring has dropped, for another run and for a number to come', () => {
    const log = makeLog(3);
    for (let index = 0; index < 5; index += 1) log.append('notice', 'device', 'd');
    expect(log.since(START)).toBe('gone');
    expect(log.since(START + 1)).toHaveLength(3);
    expect(log.since(7)).toBe('gone');
    expect(log.since(START + 5)).toBe('gone');
    expect(() => log.subscribe({ since: START })).toThrow(expect.objectContaining({ code: 'EVENTS_GONE' }));
  });

  it('gives the snapshot first, and only its last record carries a number to resume from', async () => {
    const log = makeLog();
    log.append('create', 'volume', 1);
    const exists = () => [{ object: 'volume', id: '1', data: {} } as const, { object: 'device', id: 'd', data: {} } as const];
    const reading = log.subscribe({ exists, follow: false });
    log.append('create', 'volume', 2);
    const seen = await readAll(reading);
    expect(seen.map((event) => [event.kind, event.seq])).toEqual([
      ['exists', 0],
      ['exists', START],
    ]);
    const next = await readAll(log.subscribe({ since: seen.at(-1)?.seq ?? -1, follow: false }));
    expect(next.map((event) => event.id)).toEqual(['2']);
  });

  it('follows until it is aborted, and leaves no waker behind', async () => {
    const log = makeLog();
    const controller = new AbortController();
    const reading = readAll(log.subscribe({ signal: controller.signal }));
    log.append('create', 'volume', 1);
    await new Promise(setImmediate);
    log.append('create', 'volume', 2);
    await new Promise(setImmediate);
    expect(log.readers).toBe(1);
    controller.abort();
    expect((await reading).map((event) => event.id)).toEqual(['1', '2']);
    expect(log.readers).toBe(0);
  });

  it('ends every reader on close, after what was appended before', async () => {
    const log = makeLog();
    const readings = [readAll(log.subscribe()), readAll(log.subscribe())];
    log.append('notice', 'device', 'd');
    log.close();
    for (const seen of await Promise.all(readings)) expect(seen).toHaveLength(1);
  });

  it('tells a reader that was overtaken, and never skips', async () => {
    const log = makeLog(4);
    const reader = log.subscribe()[Symbol.asyncIterator]();
    log.append('notice', 'device', 'first');
    expect((await reader.next()).value).toMatchObject({ id: 'first' });
    for (let index = 0; index < 5; index += 1) log.append('notice', 'device', String(index));
    await expect(reader.next()).rejects.toMatchObject({ code: 'EVENTS_GONE' });
  });
});
