/** Methods about the connection itself: events, cancelling. */
import { z } from 'zod';
import { defineMethod } from '../method.ts';

export const connectionMethods = {
  'events.subscribe': defineMethod({
    summary: 'Starts a stream of `event` notifications: `exists` records of all that is there, then the changes.',
    params: z.strictObject({
      since: z.int().min(0).exactOptional().describe('resume after this number, without `exists` records; 0: from the start'),
      follow: z.boolean().exactOptional().describe('false: end after what is there now; default true'),
    }),
    result: '`{ subscription: number }`',
    changes: false,
    destroysData: false,
    handler: (engine, params, context) => ({ subscription: context.stream((signal) => engine.events({ ...params, signal })) }),
  }),
  'events.unsubscribe': defineMethod({
    summary: 'Ends a stream of events; its `event.end` notification follows.',
    params: z.strictObject({ subscription: z.int().min(0) }),
    result: '`{ ended: boolean }`, false if there is none of that number',
    changes: false,
    destroysData: false,
    handler: (_engine, { subscription }, context) => ({ ended: context.endStream(subscription) }),
  }),
  'request.cancel': defineMethod({
    summary: 'Gives up a request of this connection that waits or verifies; what was changed stays changed.',
    params: z.strictObject({ id: z.union([z.string(), z.int()], { error: 'expected the id of a request' }) }),
    result: '`{ cancelled: boolean }`, false if none of that id is in flight',
    changes: false,
    destroysData: false,
    handler: (_engine, { id }, context) => ({ cancelled: context.cancel(id) }),
  }),
};
