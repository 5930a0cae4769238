/** With fs-ext this runs the conformance suite on lseek(2), without it on the stand-in as it is picked. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { seekData, seekHole } from '../../../src/platform/hole-seek.ts';
import { fsExt } from '../../../src/platform/native.ts';
import { holeSeekConformance } from '../../support/hole-seek-conformance.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

holeSeekConformance(fsExt === null ? 'picked without fs-ext' : 'fs-ext', { seekData, seekHole });

describe.skipIf(fsExt === null)('hole seeking through fs-ext', () => {
  it('does not read: the end of a file of 4 TiB is found at once', async () => {
    await using temporary = await temporaryDirectory();
    const fd = openSync(temporary.path('sparse'), 'w+');
    const sizeBytes = 4 * 1024 ** 4;
    ftruncateSync(fd, sizeBytes);
    writeSync(fd, 'x', sizeBytes - 1);
    const startedAt = performance.now();
    expect(seekData(fd, 0, sizeBytes)).toBeGreaterThan(sizeBytes - 1024 ** 2);
    expect(performance.now() - startedAt).toBeLessThan(1000);
    closeSync(fd);
  });
});
