/**
 * A file system that becomes full to the last block under an open store (a tmpfs of 2 MiB in a mount namespace of its
 * own): small changes and the deletion of volumes still work from the journal's reserve, what does not fit is refused with
 * nothing changed, and all is well once there is space again.
 */
import { expect, test } from 'vitest';
import { needClient, needRoot, run } from '../support/clients.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { temporaryDirectory } from '../support/temporary.ts';

soleMounts();

test('[store-full] a store on a full file system goes on with what needs no space', async () => {
  needRoot();
  const unshare = needClient('unshare');
  await using temporary = await temporaryDirectory();
  const command = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" --import tsx test/support/full-disk-main.ts "$1"';
  const result = await run(unshare, ['--mount', 'sh', '-c', command, 'sh', temporary.root, process.execPath]);
  expect(result).toMatchObject({ status: 0, stderr: '' });
  expect(JSON.parse(result.stdout)).toEqual({
    freeWhenFull: 0,
    small: 'done',
    large: 'STORE_FULL',
    isUnchanged: true,
    pv: 'done',
    deleted: 'done',
    scrubbed: 'done',
    freed: 'done',
    later: 'done',
    hosts: 2000,
    failure: null,
    ok: true,
    findings: [],
    reopened: { hosts: 2000, volumes: ['renamed'] },
    leftovers: [],
  });
});
