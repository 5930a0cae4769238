/** Consistency groups on the control socket: create, add, remove, list, split. */
import { z } from 'zod';
import { atMs, consent, defineMethod, pace, pairRef, planned, volumeRef } from '../method.ts';

const name = z.string().min(1).max(512).describe("the group's name");

export const groupMethods = {
  'group.create': defineMethod({
    summary: 'Makes an empty consistency group.',
    params: z.strictObject({ name, plan: planned }),
    result: '`GroupRow`, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.groupCreate(params),
  }),
  'group.add': defineMethod({
    summary: 'Puts a pair into a group.',
    params: z.strictObject({ name, ...pairRef, plan: planned }),
    result: '`GroupRow`, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.groupAdd(params),
  }),
  'group.remove': defineMethod({
    summary: 'Takes a pair out of a group; without a pair, removes the group. The pairs themselves stay.',
    params: z.strictObject({ name, primary: volumeRef.exactOptional(), secondary: volumeRef.exactOptional(), plan: planned }),
    result: '`GroupRow`, or null when the group was removed, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.groupRemove(params),
  }),
  'group.list': defineMethod({
    summary: 'All groups with the ids of their pairs.',
    params: z.strictObject({}),
    result: '`GroupRow[]`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.groupList(),
  }),
  'group.split': defineMethod({
    summary: 'Splits all pairs of a group at one point in time, or none of them; with `atMs` at a later moment.',
    params: z.strictObject({ name, atMs: atMs.exactOptional(), plan: planned }),
    result: '`PairView[]`, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.groupSplit(params),
  }),
  'group.resync': defineMethod({
    summary: 'Resyncs all pairs of a group after one inquiry about all of their secondaries.',
    params: z.strictObject({ name, pace: pace.exactOptional(), consent, plan: planned }),
    result: '`PairView[]`, or `PlanView` with `plan`',
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.groupResync(params),
  }),
};
