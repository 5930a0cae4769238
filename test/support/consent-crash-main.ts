/**
 * Resyncs a split pair with the operator's override, and dies by SIGKILL at a chosen moment between the consent and the
 * copy. Run by test/fault/consent-kill.test.ts; arguments: the store, and the moment.
 */
import type { DataPlaneOptions } from '../../src/data/plane.ts';
import { openDataPlane } from '../../src/data/plane.ts';
import type { DataPlane } from '../../src/data/plane-api.ts';
import { openEngine } from '../../src/engine/open-engine.ts';
import type { Store } from '../../src/store/store.ts';

export type Moment = 'consented' | 'recorded' | 'clients-ended' | 'switched';

const [directory, moment] = process.argv.slice(2) as [string, Moment];
const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('unreachable');
};

const openPlane = async (options: DataPlaneOptions): Promise<DataPlane> => {
  const plane = await openDataPlane(options);
  const store = options.store as Store;
  const commit = store.commit.bind(store);
  // The next record is the one that makes the pair `duplex-pending`.
  store.commit = async (change) => {
    if (moment === 'consented') die();
    await commit(change);
    if (moment === 'recorded') die();
  };
  const clientsEnd = plane.clientsEnd.bind(plane);
  plane.clientsEnd = async (which) => {
    const count = await clientsEnd(which);
    if (moment === 'clients-ended') die();
    return count;
  };
  const copyStart = plane.copyStart.bind(plane);
  plane.copyStart = (id) => {
    if (moment === 'switched') die();
    copyStart(id);
  };
  return plane;
};

const engine = await openEngine({ store: directory, lanes: 1, openPlane });
await engine.pairResync({ primary: 'db', consent: { overrides: ['no-answer:web1'], reason: 'web1 is off', by: 'test' } });
process.exit(1);
