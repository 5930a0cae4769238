/** The secondary pool on the control socket: candidates, and former capacities. */
import { z } from 'zod';
import { consent, defineMethod, planned, volumeRef } from '../method.ts';

export const poolMethods = {
  'pool.candidates': defineMethod({
    summary: 'The volumes that can be the secondary of a primary; with `explain` all volumes, and why one is not.',
    params: z.strictObject({
      primary: volumeRef,
      explain: z.boolean().exactOptional(),
      condition: z
        .enum(['same', 'any'])
        .exactOptional()
        .describe('for a pair create with that condition; left out: any, as of a named one'),
      fit: z.enum(['off', 'regions']).exactOptional().describe('for a pair create with that fitting; left out: as the setting says'),
    }),
    result: '`CandidateView[]`',
    changes: false,
    destroysData: false,
    handler: (engine, params) => engine.poolCandidates(params),
  }),
  'pool.restoreSize': defineMethod({
    summary: 'Gives a pool volume the capacity back that it had before region fitting.',
    params: z.strictObject({ volume: volumeRef, consent, plan: planned }),
    result: '`VolumeView`, or `PlanView` with `plan`',
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.poolRestoreSize(params),
  }),
};
