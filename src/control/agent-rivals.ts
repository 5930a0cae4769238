/**
 * Hosts of which two agents run at one time: a machine that was cloned with its token, or an old service that nobody
 * stopped. Each throws the other out, and the device hears only the one that came last: its silence about a mount
 * is none about the other's. So its answers are doubted as long as that goes on (specification 6: silence never counts).
 */
import type { VolumeFacts } from '../core/inquiry-round.ts';
import { FACTS_PER_VOLUME_MAX, type HostFact } from '../core/mount-facts.ts';

/** Longer than the slowest pace at which an agent comes back. */
const RIVALRY_MS = 300_000;
/** One such replacement may be an agent that came back before its dead connection was noticed. */
const REPLACEMENTS_MIN = 2;

export class AgentRivals {
  /** Host -> when an agent of it took the place of another whose connection was open, the last ones. */
  readonly #replacedAtMs = new Map<string, readonly number[]>();

  /** @returns whether the host has two agents by now */
  replaced(host: string, nowMs: number): boolean {
    const recent = [...this.#recent(host, nowMs), nowMs].slice(-REPLACEMENTS_MIN);
    this.#replacedAtMs.set(host, recent);
    return recent.length >= REPLACEMENTS_MIN;
  }

  /** What the host said, with a doubt where it has two agents. */
  doubted(host: string, findings: readonly VolumeFacts[], nowMs: number): readonly VolumeFacts[] {
    if (this.#recent(host, nowMs).length < REPLACEMENTS_MIN) return findings;
    return findings.map(({ volume, facts }) => {
      const uses = facts.filter(({ kind }) => kind !== 'not-mounted');
      return { volume, facts: [DOUBT, ...uses.slice(0, FACTS_PER_VOLUME_MAX - 1)] };
    });
  }

  #recent(host: string, nowMs: number): readonly number[] {
    const recent = (this.#replacedAtMs.get(host) ?? []).filter((atMs) => nowMs - atMs < RIVALRY_MS);
    if (recent.length === 0) this.#replacedAtMs.delete(host);
    return recent;
  }
}

const DOUBT: HostFact = {
  kind: 'unknown',
  what: 'what another machine of the same name uses',
  why: 'two agents call themselves by this name in turn',
  connections: [],
};
