/** When a lane looks for more by itself, and when it leaves that to its event loop. */
import { describe, expect, it } from 'vitest';
import { BusyPoll } from '../../../src/data/busy-poll.ts';

const OWNER = {};
const sleepUs = (us: number): void => {
  for (const end = performance.now() + us / 1000; performance.now() < end; );
};
/** A poll whose last turns all were one owner's. */
const polling = (): BusyPoll => {
  const poll = new BusyPoll();
  for (let turn = 0; turn < 20; turn += 1) {
    poll.begin(OWNER);
    poll.end();
  }
  return poll;
};
/** One turn without anything to find. @returns whether it was looked for at all */
const missedTurn = (poll: BusyPoll): boolean => {
  poll.begin(OWNER);
  const isOn = poll.look();
  sleepUs(80);
  while (poll.miss());
  poll.end();
  return isOn;
};

describe('busy polling', () => {
  it('begins when the last turns were all of one connection, and not between turns', () => {
    const poll = new BusyPoll();
    poll.begin(OWNER);
    expect([poll.look(), poll.hit(), poll.miss()]).toEqual([false, false, false]);
    const ready = polling();
    expect(ready.hit()).toBe(false);
    ready.begin(OWNER);
    expect(ready.hit()).toBe(true);
    ready.end();
    expect([ready.hit(), ready.miss()]).toEqual([false, false]);
  });

  it('ends with the first turn of another connection', () => {
    const poll = polling();
    poll.begin({});
    expect(poll.hit()).toBe(false);
    poll.end();
    poll.begin(OWNER);
    expect(poll.hit()).toBe(false);
  });

  it('looks for some microseconds, and gives the event loop its turn in any case', () => {
    const poll = polling();
    poll.begin(OWNER);
    poll.look();
    expect(poll.miss()).toBe(true);
    sleepUs(100);
    expect(poll.miss()).toBe(false);
    poll.end();
    poll.begin(OWNER);
    for (const end = performance.now() + 50; poll.hit(); ) if (performance.now() > end) throw new Error('it never ends');
  });

  it('pauses after a row of misses, and comes back', () => {
    const poll = polling();
    const looked = Array.from({ length: 9 }, () => missedTurn(poll));
    expect(looked).toEqual([true, true, true, true, true, true, true, true, false]);
    sleepUs(6000);
    expect(missedTurn(poll)).toBe(true);
  });
});
