/** The user's command for warnings: what it is told, and that it holds nothing up whatever it does. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ControlLog } from '../../../src/control/control-log.ts';
import { EventFollower } from '../../../src/control/event-follower.ts';
import { WarningCommand } from '../../../src/control/warning-command.ts';
import { EventLog } from '../../../src/core/event-log.ts';
import type { EventView } from '../../../src/core/views.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const logged = (): { readonly log: ControlLog; readonly lines: string[] } => {
  const lines: string[] = [];
  const line = (_facts: object, text: string): void => void lines.push(text);
  return { log: { debug: line, info: line, warn: line, error: line }, lines };
};
const warning = (seq: number): EventView => ({
  seq,
  atMs: 1,
  kind: 'warning',
  object: 'inquiry',
  id: 'pair resync db',
  data: { code: 'MOUNTED', text: 'a "b" \n c' },
});
const eventually = async (isSo: () => boolean): Promise<void> => {
  for (const end = performance.now() + 10_000; !isSo(); ) {
    if (performance.now() > end) throw new Error('it did not come about in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

describe('the warning command', () => {
  it('gets each warning as one line of JSON on its input, and nothing else', async () => {
    await using temporary = await temporaryDirectory();
    const { log, lines } = logged();
    const command = new WarningCommand({ command: `cat >> '${temporary.path('told')}'`, log });
    command.take(warning(7));
    command.take({ ...warning(8), kind: 'notice' });
    command.take(warning(9));
    await command.close();
    const told = readFileSync(temporary.path('told'), 'utf8').trimEnd().split('\n');
    expect(told.map((line) => JSON.parse(line) as EventView)).toEqual(expect.arrayContaining([warning(7), warning(9)]));
    expect(told).toHaveLength(2);
    expect(lines).toEqual([]);
  });

  it('that hangs is killed with all that it started, and the next warning is told', async () => {
    await using temporary = await temporaryDirectory();
    const { log, lines } = logged();
    const text = `read line; case "$line" in *'"seq":1,'*) sleep 60 & sleep 60;; *) echo "$line" > '${temporary.path('told')}';; esac`;
    const command = new WarningCommand({ command: text, log, timeoutMs: 200, runningMax: 1 });
    const startedMs = performance.now();
    command.take(warning(1));
    command.take(warning(2));
    expect(performance.now() - startedMs).toBeLessThan(100);
    await eventually(() => existsSync(temporary.path('told')));
    await command.close();
    expect(lines).toEqual(['the warning command failed: it was killed after 200 ms']);
  });

  it('that fails, or reads nothing, is logged with what it said', async () => {
    const { log, lines } = logged();
    const command = new WarningCommand({ command: 'echo no pager >&2; exit 3', log });
    command.take(warning(1));
    await command.close();
    expect(lines).toEqual(['the warning command failed: exit status 3']);
  });

  it('that is too slow for a storm of warnings loses some, which is said', async () => {
    const { log, lines } = logged();
    const command = new WarningCommand({ command: 'sleep 5', log, timeoutMs: 100, runningMax: 1, waitingMax: 3 });
    for (let seq = 1; seq <= 10; seq += 1) command.take(warning(seq));
    expect(lines).toHaveLength(6);
    expect(lines[0]).toContain('a warning was not handed to it');
    await command.close();
  });
});

describe('a follower of events', () => {
  it('takes what comes, goes on behind what it missed, and stops when it is told to', async () => {
    const events = new EventLog(() => 1000, 4);
    const { log, lines } = logged();
    const taken: string[] = [];
    let missed = 0;
    const engine = {
      events: (options: { readonly signal?: AbortSignal }) =>
        events.subscribe({ ...options, exists: () => [{ object: 'device', id: 'x', data: {} }] }),
    };
    const take = (event: EventView): void => {
      taken.push(event.id);
      if (event.id === 'bad') throw new Error('cannot take this one');
    };
    const follower = new EventFollower(engine, log, take, () => {
      missed += 1;
    });
    events.append('notice', 'pair', 'one');
    events.append('notice', 'pair', 'bad');
    events.append('notice', 'pair', 'two');
    await eventually(() => taken.length === 3);
    for (let count = 0; count < 20; count += 1) events.append('notice', 'pair', 'many');
    await eventually(() => missed === 1);
    events.append('notice', 'pair', 'after');
    await eventually(() => taken.at(-1) === 'after');
    expect(lines).toEqual(['an event could not be taken', 'events came faster than they could be taken; some were missed']);
    await follower.close();
    events.append('notice', 'pair', 'late');
    expect(taken.at(-1)).toBe('after');
  });
});
