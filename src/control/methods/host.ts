/** Hosts on the control socket: enrol, list, show, remove, their certificates and their grants. */
import { z } from 'zod';
import { VOLUME_NAME_CHARS_MAX } from '../../core/units.ts';
import { defineMethod, planned, volumeRef } from '../method.ts';

const name = z.string().min(1).max(VOLUME_NAME_CHARS_MAX).describe("the host's name");
const replace = z.boolean().exactOptional().describe('true: the certificates of before prove nothing any more');
const CERTIFIED = '`{ host: HostView, certificate: CertificateView | null }`';
const HOST_OR_PLAN = '`HostView`, or `PlanView` with `plan`';

export const hostMethods = {
  'host.add': defineMethod({
    summary: 'Makes a host known, and gives the enrolment token of its agent: once, here.',
    params: z.strictObject({
      name,
      certificate: z.boolean().exactOptional().describe("true: issue a certificate of the device's own authority as well"),
      plan: planned,
    }),
    result: '`{ host: HostView, token: string, certificate: CertificateView | null }`, or `PlanView` with `plan`',
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.hostAdd(params),
  }),
  'host.list': defineMethod({
    summary: 'All hosts: grants, agent, certificates, what they said last, NBD connections.',
    params: z.strictObject({}),
    result: '`HostView[]`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.hostList(),
  }),
  'host.show': defineMethod({
    summary: 'One host.',
    params: z.strictObject({ name }),
    result: '`HostView`',
    changes: false,
    destroysData: false,
    handler: (engine, params) => engine.hostShow(params.name),
  }),
  'host.remove': defineMethod({
    summary: 'Forgets a host: it is not asked any more, and its credentials prove nothing.',
    params: z.strictObject({ name, plan: planned }),
    result: HOST_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.hostRemove(params),
  }),
  'host.issue': defineMethod({
    summary: "Issues a certificate of the device's own authority, and binds it to the host.",
    params: z.strictObject({ name, replace }),
    result: CERTIFIED,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.hostIssue(params),
  }),
  'host.trust': defineMethod({
    summary: 'Binds a certificate of another authority to a host, whose name it has to carry.',
    params: z.strictObject({ name, certificatePem: z.string().min(1).max(65_536).describe('PEM text of the certificate'), replace }),
    result: CERTIFIED,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.hostTrust(params),
  }),
  'host.grant': defineMethod({
    summary: 'Lets a host use a volume. Enforced where the setting `exportsFollowGrants` is on.',
    params: z.strictObject({ volume: volumeRef, host: name, access: z.enum(['ro', 'rw']), plan: planned }),
    result: HOST_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.grant(params),
  }),
  'host.revoke': defineMethod({
    summary: 'Takes a grant away; where exports follow grants the connections that it gave are ended.',
    params: z.strictObject({ volume: volumeRef, host: name, plan: planned }),
    result: HOST_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.revoke(params),
  }),
};
