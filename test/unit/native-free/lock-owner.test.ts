import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { acquireFileLock, ownerPathOf } from '../../../native-free/file-lock.ts';
import { type LockOwner, livenessOf, ownerHere, parseOwner } from '../../../native-free/lock-owner.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const here = ownerHere('00'.repeat(8), 'owner-file');
const other = (changes: Partial<LockOwner>): LockOwner => ({ ...here, ...changes });
/** No process has this pid: Linux counts to 4194304. */
const NO_PID = 4_194_305;

describe('whether an owner lives', () => {
  it.each([
    ['this process', {}, 'alive'],
    ['a pid that was used again', { startTicks: '1' }, 'dead'],
    ['a pid that is not there', { pid: NO_PID }, 'dead'],
    ['before the machine started anew', { bootId: 'another' }, 'dead'],
    ['another machine', { bootId: 'another', machine: 'elsewhere' }, 'unknown'],
    ['another container', { pidNamespace: 'pid:[1]' }, 'unknown'],
    ['a machine that does not say its boot', { bootId: '', machine: 'elsewhere' }, 'unknown'],
  ] as const)('%s', (_name, changes, liveness) => expect(livenessOf(other(changes), here)).toBe(liveness));

  it('without /proc only the pid counts', () => {
    const bare = other({ bootId: '', startTicks: '', pidNamespace: '' });
    expect(livenessOf(bare, bare)).toBe('alive');
    expect(livenessOf({ ...bare, pid: NO_PID }, bare)).toBe('dead');
  });

  it('a zombie is dead', async () => {
    // The shell starts a child that ends later, and has then become a program that never waits for it.
    const parent = spawn('/bin/sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 30'], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const [text] = (await once(parent.stdout, 'data')) as [Buffer];
      const pid = Number(text.toString());
      const startTicks = (): string => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
      for (let wait = 0; wait < 100 && !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z'); wait++) await sleep(10);
      expect(livenessOf(other({ pid, startTicks: startTicks() }), here)).toBe('dead');
    } finally {
      parent.kill('SIGKILL');
    }
  });
});

describe('the text of an owner', () => {
  it('comes back as it was', () => expect(parseOwner(JSON.stringify(here))).toEqual(here));

  it('whatever else stands there is no owner', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => parseOwner(text) === null));
    for (const changes of [{ pid: 0 }, { pid: 1.5 }, { nonce: '../../etc' }, { by: 'x' }, { machine: 1 }]) {
      expect(parseOwner(JSON.stringify({ ...here, ...changes }))).toBeNull();
    }
  });

  it('an owner file that names nobody keeps the lock, and the refusal says which file to remove', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    writeFileSync(ownerPathOf(path), 'torn');
    let refusal: unknown;
    try {
      acquireFileLock(path);
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(TwinvolError);
    expect(refusal).toMatchObject({ code: 'STORE_LOCKED', details: { pid: null } });
    expect((refusal as TwinvolError).remedy).toContain(ownerPathOf(path));
  });
});
