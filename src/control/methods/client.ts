/** NBD connections on the control socket: list and end. */
import { z } from 'zod';
import { defineMethod } from '../method.ts';

export const clientMethods = {
  'client.list': defineMethod({
    summary: 'The NBD connections, with what they have read and written.',
    params: z.strictObject({}),
    result: '`ClientView[]`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.clientList(),
  }),
  'client.end': defineMethod({
    summary: "Ends an NBD connection with the protocol's shutdown error.",
    params: z.strictObject({ id: z.int().min(0).describe("the connection's number") }),
    result: '`ClientView`, as it was last',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.clientEnd(params),
  }),
};
