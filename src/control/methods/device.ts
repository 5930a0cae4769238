/** The device itself on the control socket: status and settings. */
import { z } from 'zod';
import { attribute, defineMethod, planned } from '../method.ts';

/** All settings, none of them needed. */
export const settingsShape = {
  condition: z.enum(['same', 'any']).exactOptional().describe('of an automatic choice that names none'),
  attributeAfterRelease: attribute.exactOptional().describe('of a release that names none'),
  fit: z.enum(['off', 'regions']).exactOptional().describe('of a pair create that names none'),
  secondaryAccess: z.enum(['refuse', 'read-only']).exactOptional().describe('what hosts get of a secondary whose pair is not split'),
  durability: z.enum(['power', 'process']).exactOptional().describe('what acknowledged flushes survive'),
  exportsFollowGrants: z.boolean().exactOptional().describe('hosts see only the volumes that they were granted'),
  inquiryDeadlineMs: z.int().min(50).max(60_000).exactOptional().describe('how long a host has to answer a mount inquiry'),
  restoreSizeOnRelease: z.boolean().exactOptional().describe('a release gives the secondary its former capacity back'),
};

export const deviceMethods = {
  'device.status': defineMethod({
    summary: 'The device: store, sockets, counts, what is native, durability, settings.',
    params: z.strictObject({}),
    result: '`StatusView`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.status(),
  }),
  'settings.show': defineMethod({
    summary: "The device's settings.",
    params: z.strictObject({}),
    result: '`DeviceSettings`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.settings(),
  }),
  'settings.set': defineMethod({
    summary: "Changes some of the device's settings; they hold from then on and survive a restart.",
    params: z.strictObject({ ...settingsShape, plan: planned }),
    result: '`DeviceSettings`, all of them, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.settingsSet(params),
  }),
};
