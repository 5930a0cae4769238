/**
 * The device: one open store with its data plane, as the `Engine` that the control socket, the command line and the
 * library's users see. This file is the composition root: it makes the parts, hands them to each other, and delegates;
 * decisions are in the command groups.
 *
 * Order at the start: the store is opened and checked, files of nobody are removed, the data plane starts, recovery
 * makes the tables true, and only then the sockets listen. Order at the end: nobody is let in, waits are given up,
 * commands end, the connections are drained, copies stop at a durable bitmap, and the store is told that it was in order.
 */
import type { Logger } from 'pino';
import type { AuditRecord } from '../core/audit.ts';
import { TwinvolError } from '../core/faults.ts';
import type { HostView, InquiryView, MountView } from '../core/host-views.ts';
import type { DeviceSettings, GroupRow, TableOp } from '../core/rows.ts';
import type { ApplyView, CandidateView, ClientView, EventView, PairView, PlanView, StatusView, VolumeView } from '../core/views.ts';
import type {
  ApplyInput,
  CandidatesInput,
  AuditInput,
  Consent,
  Engine,
  FaultAddInput,
  FaultRule,
  HostAdded,
  HostCertified,
  PairCommandInput,
  PairCreateInput,
  PairReleaseInput,
  Released,
  PairWaitInput,
  VerifyInput,
  VerifyReport,
  VolumeCreateInput,
  VolumeRef,
} from './api.ts';
import { Apply } from './apply.ts';
import { ClientCommands } from './client-commands.ts';
import type { DeviceContext } from './context.ts';
import type { DeviceParts } from './device-parts.ts';
import { FaultCommands } from './fault-commands.ts';
import { GroupCommands } from './group-commands.ts';
import { GroupResync } from './group-resync.ts';
import { HostCommands } from './host-commands.ts';
import { InquiryCommands } from './inquiry-commands.ts';
import { PairCommands } from './pair-commands.ts';
import { PairCreate } from './pair-create.ts';
import { verifyPair } from './pair-verify.ts';
import { waitForPair } from './pair-wait.ts';
import { PoolCommands } from './pool-commands.ts';
import { ScheduledSplits } from './scheduled-splits.ts';
import { SettingsCommands } from './settings-commands.ts';
import { StatusReport } from './status-report.ts';
import { StoreWatch } from './store-watch.ts';
import { VolumeCommands } from './volume-commands.ts';

type Input<K extends keyof Engine> = Engine[K] extends (input: infer I, ...rest: never[]) => unknown ? I : never;

export class DeviceEngine implements Engine {
  readonly #parts: DeviceParts;
  readonly #context: DeviceContext;
  readonly #log: Logger;
  readonly #volumes: VolumeCommands;
  readonly #pool: PoolCommands;
  readonly #create: PairCreate;
  readonly #pairs: PairCommands;
  readonly #groups: GroupCommands;
  readonly #groupResync: GroupResync;
  readonly #hosts: HostCommands;
  readonly #inquiries: InquiryCommands;
  readonly #scheduled: ScheduledSplits;
  readonly #apply: Apply;
  readonly #faults: FaultCommands;
  readonly #clients: ClientCommands;
  readonly #settings: SettingsCommands;
  readonly #report: StatusReport;
  readonly #watch: StoreWatch;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  #closed: Promise<void> | null = null;

  /** Use `openEngine` (`open-engine.ts`). */
  constructor(parts: DeviceParts) {
    const { context, shell } = parts;
    this.#parts = parts;
    this.#context = context;
    this.#log = context.log;
    this.#faults = new FaultCommands(context);
    this.#volumes = new VolumeCommands(context, (number) => this.#faults.forget(number));
    this.#pool = new PoolCommands(context);
    this.#create = new PairCreate(context, shell);
    this.#pairs = new PairCommands(context, shell, this.#pool);
    this.#groups = new GroupCommands(context, shell, this.#pairs);
    this.#scheduled = new ScheduledSplits(context, this.#pairs, this.#groups);
    this.#scheduled.look();
    this.#apply = new Apply(context, this);
    this.#groupResync = new GroupResync(context, shell);
    this.#hosts = new HostCommands(context);
    this.#inquiries = new InquiryCommands(context);
    this.#clients = new ClientCommands(context);
    this.#settings = new SettingsCommands(context);
    this.#report = new StatusReport(parts);
    this.#watch = new StoreWatch(context);
  }

  status(): StatusView {
    return this.#report.status();
  }
  settings(): DeviceSettings {
    return this.#settings.get();
  }
  settingsSet(changes: Input<'settingsSet'>): Promise<DeviceSettings | PlanView> {
    return this.#do(() => this.#settings.set(changes));
  }

  volumeCreate(input: VolumeCreateInput): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#volumes.create(input));
  }
  volumeList(): readonly VolumeView[] {
    return this.#volumes.list();
  }
  volumeShow(volume: VolumeRef): VolumeView {
    return this.#volumes.show(volume);
  }
  volumeRename(input: Input<'volumeRename'>): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#volumes.rename(input));
  }
  volumeGrow(input: Input<'volumeGrow'>): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#volumes.grow(input));
  }
  volumeDelete(input: Input<'volumeDelete'>): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#volumes.delete(input));
  }
  volumeSet(input: Input<'volumeSet'>): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#volumes.set(input));
  }
  uri(volume: VolumeRef): string {
    return this.#context.views.uri(this.#context.store.tables.volume(volume));
  }

  poolCandidates(input: CandidatesInput): readonly CandidateView[] {
    return this.#pool.candidates(input);
  }
  poolRestoreSize(input: Input<'poolRestoreSize'>): Promise<VolumeView | PlanView> {
    return this.#do(() => this.#pool.restoreSize(input));
  }

  pairCreate(input: PairCreateInput & { readonly consent?: Consent }): Promise<PairView | PlanView> {
    return this.#do(() => this.#create.run(input));
  }
  pairStatus(input: { readonly primary?: VolumeRef } = {}): readonly PairView[] {
    return this.#pairs.status(input.primary);
  }
  pairWait(input: PairWaitInput, signal?: AbortSignal): Promise<PairView | null> {
    return this.#do(() => waitForPair(this.#context, input, this.#until(signal)));
  }
  pairSplit(input: Input<'pairSplit'>): Promise<PairView | PlanView> {
    const { atMs } = input;
    return this.#do(() => (atMs === undefined ? this.#pairs.split(input) : this.#scheduled.pair({ ...input, atMs })));
  }
  pairResync(input: PairCommandInput): Promise<PairView | PlanView> {
    return this.#do(() => this.#pairs.resync(input));
  }
  pairRestore(input: PairCommandInput): Promise<PairView | PlanView> {
    return this.#do(() => this.#pairs.restore(input));
  }
  pairRelease(input: PairReleaseInput): Promise<Released | PlanView> {
    return this.#do(() => this.#pairs.release(input));
  }
  pairSet(input: Input<'pairSet'>): Promise<PairView | PlanView> {
    return this.#do(() => this.#pairs.set(input));
  }
  pairVerify(input: VerifyInput, signal?: AbortSignal): Promise<VerifyReport> {
    return this.#do(() => verifyPair(this.#context, this.#parts.shell, input, this.#until(signal)));
  }

  groupCreate(input: Input<'groupCreate'>): Promise<GroupRow | PlanView> {
    return this.#do(() => this.#groups.create(input));
  }
  groupAdd(input: Input<'groupAdd'>): Promise<GroupRow | PlanView> {
    return this.#do(() => this.#groups.add(input));
  }
  groupRemove(input: Input<'groupRemove'>): Promise<GroupRow | PlanView | null> {
    return this.#do(() => this.#groups.remove(input));
  }
  groupList(): readonly GroupRow[] {
    return this.#groups.list();
  }
  groupSplit(input: Input<'groupSplit'>): Promise<readonly PairView[] | PlanView> {
    const { atMs } = input;
    return this.#do(() => (atMs === undefined ? this.#groups.split(input) : this.#scheduled.group({ ...input, atMs })));
  }

  groupResync(input: Input<'groupResync'>): Promise<readonly PairView[] | PlanView> {
    return this.#do(() => this.#groupResync.run(input));
  }

  hostAdd(input: Input<'hostAdd'>): Promise<HostAdded | PlanView> {
    return this.#do(() => this.#hosts.add(input));
  }
  hostList(): Promise<readonly HostView[]> {
    return this.#do(() => this.#hosts.list());
  }
  hostShow(name: string): Promise<HostView> {
    return this.#do(() => this.#hosts.show(name));
  }
  hostRemove(input: Input<'hostRemove'>): Promise<HostView | PlanView> {
    return this.#do(() => this.#hosts.remove(input));
  }
  hostIssue(input: Input<'hostIssue'>): Promise<HostCertified> {
    return this.#do(() => this.#hosts.issue(input));
  }
  hostTrust(input: Input<'hostTrust'>): Promise<HostCertified> {
    return this.#do(() => this.#hosts.trust(input));
  }
  grant(input: Input<'grant'>): Promise<HostView | PlanView> {
    return this.#do(() => this.#hosts.grant(input));
  }
  revoke(input: Input<'revoke'>): Promise<HostView | PlanView> {
    return this.#do(() => this.#hosts.revoke(input));
  }
  mounts(input: { readonly volume?: VolumeRef } = {}): readonly MountView[] {
    return this.#inquiries.mounts(input.volume);
  }
  inquiry(volume: VolumeRef): Promise<InquiryView> {
    return this.#do(() => this.#inquiries.ask(volume));
  }
  audit(input: AuditInput = {}): Promise<readonly AuditRecord[]> {
    return this.#do(() => this.#inquiries.audit(input));
  }

  apply(input: ApplyInput): Promise<ApplyView> {
    return this.#do(() => this.#apply.run(input));
  }

  clientList(): Promise<readonly ClientView[]> {
    return this.#do(() => this.#clients.list());
  }
  clientEnd(input: { readonly id: number }): Promise<ClientView> {
    return this.#do(() => this.#clients.end(input.id));
  }

  faultAdd(input: FaultAddInput): Promise<FaultRule> {
    return this.#do(() => this.#faults.add(input));
  }
  faultList(): readonly FaultRule[] {
    return this.#faults.list();
  }
  faultClear(input: { readonly id?: number; readonly volume?: VolumeRef }): Promise<number> {
    return this.#do(() => this.#faults.clear(input));
  }

  events(options: { readonly since?: number; readonly signal?: AbortSignal; readonly follow?: boolean }): AsyncIterable<EventView> {
    return this.#context.events.subscribe({ ...options, exists: () => this.#report.exists() });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Runs a command, and keeps count of it for the end. @throws TwinvolError `ENGINE_STOPPING` */
  #do<T>(work: () => Promise<T>): Promise<T> {
    if (this.#stop.signal.aborted) return Promise.reject(stopping());
    const running = work();
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, forget);
    return running;
  }

  /** The caller's signal, or the end of the device, whichever comes first. */
  #until(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
  }

  async #close(): Promise<void> {
    const { policy, shell, happenings } = this.#parts;
    const { plane, regions, store, events, pairs, audit } = this.#context;
    this.#log.info({ store: store.directory }, 'stopping');
    this.#stop.abort(stopping());
    policy.stop();
    this.#watch.close();
    await this.#scheduled.close();
    await Promise.allSettled(this.#running);
    await happenings.close();
    shell.close();
    let isClean = pairs.unsettled().length === 0;
    try {
      await plane.close();
    } catch (error) {
      isClean = false;
      this.#log.error({ err: error }, 'the data plane did not end in order; the next start resyncs what may differ');
    }
    await this.#recordWriteTimes();
    try {
      await regions.close();
    } finally {
      events.close();
      await audit.close();
      await store.close({ clean: isClean });
      this.#log.info({ isClean }, 'stopped');
    }
  }

  /** When split secondaries were written on, for the warnings of the next run. What cannot be recorded is not known then. */
  async #recordWriteTimes(): Promise<void> {
    const { plane, store, pairs } = this.#context;
    try {
      const ops = pairs.rows().flatMap((row): TableOp[] => {
        const { secondaryWritten } = plane.pairProgress(row.id);
        const isNews = secondaryWritten.firstAtMs !== null || secondaryWritten.lastAtMs !== null;
        return row.state === 'split' && isNews ? [{ op: 'pair-put', row: { ...row, secondaryWritten } }] : [];
      });
      if (ops.length > 0) await store.commit(ops);
    } catch (error) {
      this.#log.warn({ err: error }, 'the times of writes on split secondaries could not be recorded');
    }
  }
}

const stopping = (): TwinvolError => new TwinvolError('ENGINE_STOPPING', 'the engine is stopping');
