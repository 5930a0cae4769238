/** Test volumes that misbehave on purpose, on the control socket: add, list and clear faults. */
import { z } from 'zod';
import { defineMethod, volumeRef } from '../method.ts';

export const faultMethods = {
  'fault.add': defineMethod({
    summary: 'Makes a volume misbehave: errors or latency, on a range, at a rate, so many times; repeatable by its seed.',
    params: z.strictObject({
      volume: volumeRef,
      error: z.enum(['read', 'write', 'flush', 'any']).exactOptional().describe('which requests it strikes'),
      errno: z.enum(['EIO', 'ENOSPC', 'EPERM', 'none']).exactOptional().describe('what they get; `none`: latency only'),
      offset: z.int().min(0).exactOptional().describe('first byte of the range'),
      length: z.int().min(0).exactOptional().describe('bytes of the range'),
      rate: z.number().min(0).max(1).exactOptional().describe('probability, 0 to 1'),
      latencyMs: z.number().min(0).max(600_000).exactOptional(),
      count: z.int().min(1).nullable().exactOptional().describe('how often it strikes; null: for ever'),
      seed: z.int().min(0).exactOptional(),
    }),
    result: '`FaultRule`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.faultAdd(params),
  }),
  'fault.list': defineMethod({
    summary: 'The faults that are set, with how often each has struck.',
    params: z.strictObject({}),
    result: '`FaultRule[]`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.faultList(),
  }),
  'fault.clear': defineMethod({
    summary: 'Takes faults away: one, those of a volume, or all.',
    params: z.strictObject({ id: z.int().min(0).exactOptional(), volume: volumeRef.exactOptional() }),
    result: 'how many were taken away',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.faultClear(params),
  }),
};
