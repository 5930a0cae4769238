/** With fs-ext this runs the conformance suite on flock(2), without it on the stand-in as it is picked. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { acquireFileLock as acquireStandIn, ownerPathOf } from '../../../native-free/file-lock.ts';
import { ownerHere, parseOwner } from '../../../native-free/lock-owner.ts';
import { acquireFileLock } from '../../../src/platform/file-lock.ts';
import { fsExt } from '../../../src/platform/native.ts';
import { fileLockConformance, holdElsewhere, kill } from '../../support/file-lock-conformance.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

fileLockConformance(fsExt === null ? 'picked without fs-ext' : 'fs-ext', {
  acquire: acquireFileLock,
  native: fsExt === null ? 'off' : 'on',
});

describe.skipIf(fsExt === null)('a store between a process with fs-ext and one without', () => {
  it('each keeps the other out', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    const native = acquireFileLock(path);
    expect(() => acquireStandIn(path)).toThrow(`Process ${process.pid} holds the lock`);
    native.release();
    const standIn = acquireStandIn(path);
    expect(() => acquireFileLock(path)).toThrow(`Process ${process.pid} holds the lock`);
    standIn.release();
    acquireFileLock(path).release();
  });

  it('each takes over from the other when it was killed', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    await kill(await holdElsewhere(path, 'on'));
    acquireStandIn(path).release();
    await kill(await holdElsewhere(path, 'off'));
    acquireFileLock(path).release();
  });
});

describe.skipIf(fsExt === null)('the flock', () => {
  it('proves an owner dead that cannot be seen: another container that held it and ended', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    writeFileSync(ownerPathOf(path), JSON.stringify({ ...ownerHere('ab'.repeat(8), 'flock'), pidNamespace: 'pid:[1]' }));
    expect(() => acquireStandIn(path)).toThrow('cannot be seen from here');
    acquireFileLock(path).release();
  });

  it('names its owner in the lock file, and nobody after the release', async () => {
    await using temporary = await temporaryDirectory();
    const lock = acquireFileLock(temporary.path('lock'));
    expect(parseOwner(readFileSync(temporary.path('lock'), 'utf8'))).toMatchObject({ pid: process.pid, by: 'flock' });
    lock.release();
    expect(readFileSync(temporary.path('lock'), 'utf8')).toBe('');
  });
});
