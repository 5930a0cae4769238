/** A plan: what a command would do, in the shape that every command shares. */
import type { Destruction } from '../core/inquiry-text.ts';
import type { PlanView, RegionMove } from '../core/views.ts';

export type PlanParts = {
  readonly steps: readonly string[];
  readonly volumes?: readonly string[];
  readonly hosts?: readonly string[];
  readonly regions?: number;
  readonly moves?: readonly RegionMove[];
  readonly bytes?: number;
  readonly destroysBytes?: number;
  readonly destroys?: readonly Destruction[];
};

export const planView = (command: string, parts: PlanParts): PlanView => ({
  command,
  plan: true,
  steps: parts.steps,
  volumes: parts.volumes ?? [],
  hosts: parts.hosts ?? [],
  regions: parts.regions ?? 0,
  moves: parts.moves ?? [],
  bytes: parts.bytes ?? 0,
  destroysBytes: parts.destroysBytes ?? parts.destroys?.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0,
  destroys: parts.destroys ?? [],
});

/** The step of a plan that ends NBD clients, and of which volume where it is not plain; no step where there are none. */
export const endedClients = (clients: number, volume: string | null = null): readonly string[] => {
  if (clients === 0) return [];
  const where = volume === null ? '' : ` to ${volume}`;
  return [clients === 1 ? `1 NBD connection${where} is ended` : `${clients} NBD connections${where} are ended`];
};
