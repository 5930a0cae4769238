/** Pairs on the control socket: create, status, wait, split, resync, restore, release, set, verify. */
import { z } from 'zod';
import { PAIR_STATES } from '../../core/rows.ts';
import { atMs, attribute, consent, defineMethod, fence, pace, pairRef, planned, timeoutMs, volumeRef } from '../method.ts';

const PAIR_OR_PLAN = '`PairView`, or `PlanView` with `plan`';
const condition = z
  .enum(['same', 'any'])
  .describe('of an automatic choice: a volume of the same capacity only, or else the smallest larger one');
const checksum = z.boolean().describe('read both legs and write only what differs');

export const pairMethods = {
  'pair.create': defineMethod({
    summary: 'Forms a pair and starts the initial copy; without `secondary` the device chooses one from the pool.',
    params: z.strictObject({
      primary: volumeRef,
      secondary: volumeRef.exactOptional().describe('left out: the device chooses'),
      condition: condition.exactOptional(),
      fit: z.enum(['off', 'regions']).exactOptional().describe("`regions`: the secondary ends with the primary's capacity"),
      pace: pace.exactOptional(),
      fence: fence.exactOptional(),
      dirtyRegionBytes: z.int().min(1).exactOptional().describe('size of a region of the dirty bitmap'),
      consent,
      plan: planned,
    }),
    result: PAIR_OR_PLAN,
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.pairCreate(params),
  }),
  'pair.status': defineMethod({
    summary: 'The pairs of one primary, or all: state, copy pointer, dirty bytes, rate.',
    params: z.strictObject({ primary: volumeRef.exactOptional() }),
    result: '`PairView[]`',
    changes: false,
    destroysData: false,
    handler: (engine, params) => engine.pairStatus(params),
  }),
  'pair.wait': defineMethod({
    summary: 'Answers when the pair is in the state, or with `TIMEOUT`, or with `WAIT_IMPOSSIBLE` when it cannot come any more.',
    params: z.strictObject({ ...pairRef, state: z.enum(PAIR_STATES), timeoutMs }),
    result: '`PairView`, or null for `simplex`',
    changes: false,
    destroysData: false,
    handler: (engine, params, { signal }) => engine.pairWait(params, signal),
  }),
  'pair.split': defineMethod({
    summary: 'Stops the update copy; the secondary keeps the image of this moment, or of a later one with `atMs`.',
    params: z.strictObject({ ...pairRef, atMs: atMs.exactOptional(), plan: planned }),
    result: PAIR_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.pairSplit(params),
  }),
  'pair.resync': defineMethod({
    summary: 'Makes the secondary equal to the primary again: copies what differs, from primary to secondary.',
    params: z.strictObject({ ...pairRef, pace: pace.exactOptional(), checksum: checksum.exactOptional(), consent, plan: planned }),
    result: PAIR_OR_PLAN,
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.pairResync(params),
  }),
  'pair.restore': defineMethod({
    summary: 'Makes the primary equal to the secondary: copies what differs, from secondary to primary.',
    params: z.strictObject({ ...pairRef, pace: pace.exactOptional(), checksum: checksum.exactOptional(), consent, plan: planned }),
    result: PAIR_OR_PLAN,
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.pairRestore(params),
  }),
  'pair.release': defineMethod({
    summary: 'Ends the pair; the secondary goes back to the pool or becomes a volume of its own.',
    params: z.strictObject({
      ...pairRef,
      then: attribute
        .exactOptional()
        .describe("the secondary's attribute afterwards; left out: as the device's setting says, of a restore normal"),
      consent,
      plan: planned,
    }),
    result: '`{ released: PairView, sizeKept?: { code, message } }` (why a former capacity was not given back), or `PlanView` with `plan`',
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.pairRelease(params),
  }),
  'pair.set': defineMethod({
    summary: 'Changes the pace or the fence level of a pair.',
    params: z.strictObject({ ...pairRef, pace: pace.exactOptional(), fence: fence.exactOptional(), plan: planned }),
    result: PAIR_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.pairSet(params),
  }),
  'pair.verify': defineMethod({
    summary: 'Compares the two volumes of a pair under load; with `repair`, what differs is marked dirty and resynced.',
    params: z.strictObject({ ...pairRef, repair: z.boolean().exactOptional() }),
    result: '`VerifyReport`',
    changes: true,
    destroysData: false,
    handler: (engine, params, { signal }) => engine.pairVerify(params, signal),
  }),
};
