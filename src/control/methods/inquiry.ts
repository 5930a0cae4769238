/** Who uses which volume, on the control socket: ask now, what was said last, and the audit record. */
import { z } from 'zod';
import { defineMethod, volumeRef } from '../method.ts';

export const inquiryMethods = {
  'inquiry.ask': defineMethod({
    summary: 'Asks every host that can reach the volume whether it uses it, and looks at the live connections. Decides nothing.',
    params: z.strictObject({ volume: volumeRef }),
    result: '`InquiryView`',
    changes: false,
    destroysData: false,
    handler: (engine, { volume }) => engine.inquiry(volume),
  }),
  'inquiry.mounts': defineMethod({
    summary: 'The mount table: what the hosts said last, with its age.',
    params: z.strictObject({ volume: volumeRef.exactOptional() }),
    result: '`MountView[]`',
    changes: false,
    destroysData: false,
    handler: (engine, params) => engine.mounts(params),
  }),
  'inquiry.audit': defineMethod({
    summary: 'The audit record: inquiries, answers, decisions, overrides and outcomes, oldest first.',
    params: z.strictObject({
      since: z.int().min(0).exactOptional().describe('records after this number'),
      limit: z.int().min(1).max(10_000).exactOptional().describe('at most so many; the next call goes on from the last one'),
    }),
    result: '`AuditRecord[]`',
    changes: false,
    destroysData: false,
    handler: (engine, params) => engine.audit(params),
  }),
};
