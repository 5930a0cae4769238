/**
 * Hosts: who may reach which volume, and what proves who they are (specification 2 and 6).
 *
 * A change here changes who is asked before content is overwritten, so each is on record before it takes effect. The
 * enrolment token is shown once and never kept; of a certificate only its SHA-256 is kept. What a host may not have any
 * more it loses at once: its connections are ended where exports follow grants.
 */
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { TwinvolError } from '../core/faults.ts';
import { withGrant, withoutGrant } from '../core/host-access.ts';
import type { HostView } from '../core/host-views.ts';
import { requireName } from '../core/names.ts';
import { CERTIFICATES_PER_HOST_MAX } from '../core/row-rules.ts';
import type { HostAccess, HostRow, VolumeRow } from '../core/rows.ts';
import type { PlanView } from '../core/views.ts';
import type { IssuedCertificate } from './agent-desk.ts';
import type { Engine, HostAdded, HostCertified } from './api.ts';
import type { DeviceContext } from './context.ts';
import { clientsOf, endUngranted } from './host-clients.ts';
import { mountViews } from './mount-views.ts';
import { planView } from './plan.ts';

type Input<K extends keyof Engine> = Engine[K] extends (input: infer I, ...rest: never[]) => unknown ? I : never;

const TOKEN_BYTES = 24;

export class HostCommands {
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  async list(): Promise<readonly HostView[]> {
    const clients = await this.#context.plane.clients();
    return this.#context.store.tables.hosts().map((row) => this.#view(row, clients));
  }

  async show(name: string): Promise<HostView> {
    return this.#view(this.#require(name), await this.#context.plane.clients());
  }

  async add({ name, certificate = false, plan }: Input<'hostAdd'>): Promise<HostAdded | PlanView> {
    requireName('host', name);
    this.#requireFree(name);
    if (plan === true) return planView('host add', { steps: addSteps(name, certificate), hosts: [name] });
    const token = randomBytes(TOKEN_BYTES).toString('base64url');
    const issued = certificate ? await this.#issue(name) : null;
    const row: HostRow = {
      name,
      tokenSha256: createHash('sha256').update(token).digest('hex'),
      grants: {},
      ...(issued === null ? {} : { certificates: [issued.sha256] }),
      createdAtMs: this.#context.nowMs(),
    };
    await this.#record('added', name);
    await this.#context.store.commit(() => {
      this.#requireFree(name);
      return [{ op: 'host-put', row }];
    });
    this.#context.events.append('create', 'host', name, { grants: {} });
    return { host: await this.show(name), token, certificate: issued };
  }

  async remove({ name, plan }: Input<'hostRemove'>): Promise<HostView | PlanView> {
    const view = await this.show(name);
    if (plan === true) {
      const uses = view.mounts.flatMap(({ texts }) => texts);
      const steps = [`nobody asks ${name} before a volume is overwritten any more`, ...uses.map((text) => `it said last: ${text}`)];
      return planView('host remove', { steps, hosts: [name] });
    }
    await this.#record('removed', name);
    await this.#context.store.commit((tables) => {
      if (tables.host(name) === undefined) throw noHost(name);
      return [{ op: 'host-delete', name }];
    });
    this.#context.events.append('destroy', 'host', name, {});
    await endUngranted(this.#context);
    return view;
  }

  /** A certificate of the device's own authority, bound to the host. */
  async issue({ name, replace = false }: Input<'hostIssue'>): Promise<HostCertified> {
    this.#require(name);
    const issued = await this.#issue(name);
    return { host: await this.#bind(name, issued.sha256, replace), certificate: issued };
  }

  /** A certificate of somebody else's authority, bound to the host. */
  async trust({ name, certificatePem, replace = false }: Input<'hostTrust'>): Promise<HostCertified> {
    this.#require(name);
    return { host: await this.#bind(name, sha256OfPem(name, certificatePem), replace), certificate: null };
  }

  async grant({ volume: ref, host, access, plan }: Input<'grant'>): Promise<HostView | PlanView> {
    const volume = this.#context.store.tables.volume(ref);
    this.#require(host);
    if (plan === true) {
      const how = access === 'ro' ? 'read-only' : 'read-write';
      return planView('grant', {
        steps: [`host ${host} may use ${volume.name} ${how}`, this.#enforced()],
        volumes: [volume.name],
        hosts: [host],
      });
    }
    return this.#regrant('granted', host, volume, access, (row) => withGrant(row, volume.number, access));
  }

  async revoke({ volume: ref, host, plan }: Input<'revoke'>): Promise<HostView | PlanView> {
    const volume = this.#context.store.tables.volume(ref);
    const row = this.#require(host);
    if (withoutGrant(row, volume.number) === row) {
      throw new TwinvolError('GRANT_NOT_FOUND', `host ${host} was not granted ${volume.name}`, {
        details: { host, volume: volume.number },
      });
    }
    if (plan === true) {
      return planView('revoke', {
        steps: [`host ${host} may not use ${volume.name} any more`, this.#enforced()],
        volumes: [volume.name],
        hosts: [host],
      });
    }
    return this.#regrant('revoked', host, volume, null, (present) => withoutGrant(present, volume.number));
  }

  async #regrant(
    change: 'granted' | 'revoked',
    host: string,
    volume: VolumeRow,
    access: HostAccess | null,
    changed: (row: HostRow) => HostRow,
  ): Promise<HostView> {
    const { audit, store, events } = this.#context;
    await audit.host({ change, host, volume: { number: volume.number, name: volume.name }, access, text: null });
    await store.commit((tables) => {
      // The number may belong to another volume by now.
      const present = tables.findVolume(volume.number);
      if (present?.uuid !== volume.uuid) throw new TwinvolError('VOLUME_NOT_FOUND', `volume ${volume.name} was deleted meanwhile`);
      return [{ op: 'host-put', row: changed(tables.host(host) ?? missing(host)) }];
    });
    events.append('change', 'host', host, { grants: this.#require(host).grants });
    await endUngranted(this.#context);
    return this.show(host);
  }

  async #bind(name: string, sha256: string, replace: boolean): Promise<HostView> {
    const { audit, store, events, plane } = this.#context;
    await audit.host({ change: 'certificate', host: name, volume: null, access: null, text: `${replace ? 'only' : 'also'} ${sha256}` });
    await store.commit((tables) => {
      const row = tables.host(name) ?? missing(name);
      const kept = replace ? [] : (row.certificates ?? []).filter((one) => one !== sha256);
      if (kept.length >= CERTIFICATES_PER_HOST_MAX) {
        throw new TwinvolError('LIMIT', `host ${name} has ${kept.length} certificates, and ${CERTIFICATES_PER_HOST_MAX} is the limit`, {
          remedy: 'bind the new one with --replace, which takes the others away',
        });
      }
      return [{ op: 'host-put', row: { ...row, certificates: [...kept, sha256] } }];
    });
    events.append('change', 'host', name, { certificates: this.#require(name).certificates ?? [] });
    // What a certificate had proved is not proved any more.
    if (replace) for (const { id } of clientsOf(await plane.clients(), name)) await plane.clientsEnd({ client: id });
    return this.show(name);
  }

  #issue(name: string): Promise<IssuedCertificate> {
    const { certificates } = this.#context;
    if (certificates !== null) return certificates.issueHost(name);
    throw new TwinvolError('NOT_SUPPORTED', 'this device issues no certificates', {
      remedy: 'bind one of your own authority with twinvol host trust',
    });
  }

  #record(change: 'added' | 'removed', host: string): Promise<void> {
    return this.#context.audit.host({ change, host, volume: null, access: null, text: null });
  }

  #require(name: string): HostRow {
    return this.#context.store.tables.host(name) ?? missing(name);
  }

  #requireFree(name: string): void {
    if (this.#context.store.tables.host(name) === undefined) return;
    throw new TwinvolError('HOST_EXISTS', `host ${name} exists already`, { details: { host: name } });
  }

  #enforced(): string {
    return this.#context.store.tables.settings.exportsFollowGrants
      ? 'connections that are not allowed any more are ended'
      : 'exports do not follow grants (setting exportsFollowGrants): every caller reaches every volume, and every host is asked';
  }

  #view(row: HostRow, clients: readonly Parameters<typeof clientsOf>[0][number][]): HostView {
    const { store, desk, nowMs } = this.#context;
    const grants = Object.entries(row.grants)
      .map(([number, access]) => ({ volume: { number: Number(number), name: store.tables.volume(Number(number)).name }, access }))
      .sort((one, other) => one.volume.number - other.volume.number);
    const said = desk?.mountTable().filter((mount) => mount.host === row.name) ?? [];
    return {
      name: row.name,
      grants,
      certificates: row.certificates ?? [],
      createdAtMs: row.createdAtMs,
      agent: desk?.agents().find((agent) => agent.host === row.name) ?? null,
      mounts: mountViews(said, store.tables, nowMs()).filter((mount) => mount.inUse),
      clients: clientsOf(clients, row.name),
    };
  }
}

const noHost = (name: string): TwinvolError => new TwinvolError('HOST_NOT_FOUND', `there is no host ${name}`, { details: { host: name } });
const missing = (name: string): never => {
  throw noHost(name);
};

const addSteps = (name: string, certificate: boolean): readonly string[] => [
  `host ${name} is known, and is asked before a volume that it can reach is overwritten`,
  'a token is made and shown once; its agent needs it',
  ...(certificate ? ['a certificate of the device proves it over TLS'] : []),
];

/** @throws TwinvolError `USAGE` for what is no certificate, or one of another name */
const sha256OfPem = (host: string, pem: string): string => {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    throw new TwinvolError('USAGE', 'that is no certificate', { remedy: 'give the PEM text of an X.509 certificate', cause: error });
  }
  const names = certificate.subject.split('\n').filter((part) => part.startsWith('CN='));
  if (names.length !== 1 || names[0] !== `CN=${host}`) {
    throw new TwinvolError('USAGE', `the certificate is for ${names.join(', ') || 'nobody'}, not for ${host}`, {
      remedy: "give a certificate whose common name is the host's name",
    });
  }
  return createHash('sha256').update(certificate.raw).digest('hex');
};
