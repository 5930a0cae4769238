/**
 * Between the engine and whoever speaks with the hosts' agents: what the engine asks of it, and what it may know of the
 * device. The composition root joins the two (`src/hosted-device.ts`); a device without one asks nobody, and every host
 * is then one that did not answer.
 */
import type { EventView } from '../core/views.ts';
import type { AgentView, CertificateView, MountTableRow } from '../core/host-views.ts';
import type { Asked } from '../core/inquiry-round.ts';
import type { HostAnswer, InquiryTarget } from '../core/mount-facts.ts';
import type { HostRow } from '../core/rows.ts';

/** Whoever can ask the hosts' agents. One answer for each host and volume asked; never rejects. */
export interface HostAsker {
  ask(input: {
    readonly targets: readonly InquiryTarget[];
    readonly asked: readonly Asked[];
    readonly deadlineMs?: number;
  }): Promise<readonly HostAnswer[]>;
}

export interface AgentDesk extends HostAsker {
  /** Connected agents, by host. */
  agents(): readonly AgentView[];
  /** What the hosts said last. */
  mountTable(): readonly MountTableRow[];
}

/** What an agent desk may know of the device. */
export interface HostDirectory {
  /** The hosts as the tables have them now. */
  hosts(): readonly HostRow[];
  /** The volumes that a host can reach, as they are asked about. */
  watchOf(host: string): readonly InquiryTarget[];
  /** A volume's name; null when there is none of that number. */
  nameOf(volume: number): string | null;
  /** Puts something about a host into the event log. */
  tell(kind: Extract<EventView['kind'], 'notice' | 'warning'>, host: string, data: EventView['data']): void;
}

/** Issues certificates that prove hosts, where the device has an authority of its own. */
export interface CertificateDesk {
  /** @throws TwinvolError `NAME_INVALID`, `STORE_DAMAGED`, `STORE_IO` */
  issueHost(host: string): Promise<IssuedCertificate>;
}

export type IssuedCertificate = CertificateView;
