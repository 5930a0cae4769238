/**
 * The answer of a host: for each target what is in use, from one look at the host.
 */
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { HostFact, InquiryTarget, MountedFact, OpenFact } from '../core/mount-facts.ts';
import { factIdentity, factsOf } from '../core/mount-facts.ts';
import { CONNECTIONS_PER_FACT_MAX, LAYERS_PER_FACT_MAX, PROCESSES_PER_FACT_MAX } from '../wire/agent-messages.ts';
import { findAttachments } from './attachments.ts';
import type { HostProbe, HostSnapshot } from './snapshot.ts';
import { takeSnapshot } from './snapshot.ts';
import type { TargetServer } from './target-server.ts';
import { hostNamesOf, leadsToServer, targetServer } from './target-server.ts';
import { traceUses } from './trace.ts';

/** Long lists are cut to what a message carries: the fact is what counts, and it stays. */
const bounded = (fact: MountedFact | OpenFact): MountedFact | OpenFact => {
  const cut = { layers: fact.layers.slice(0, LAYERS_PER_FACT_MAX), connections: fact.connections.slice(0, CONNECTIONS_PER_FACT_MAX) };
  return fact.kind === 'open' ? { ...fact, ...cut, processes: fact.processes.slice(0, PROCESSES_PER_FACT_MAX) } : { ...fact, ...cut };
};

const factsFor = (server: TargetServer, snapshot: HostSnapshot): readonly HostFact[] => {
  const { attachments, doubts } = findAttachments(server, snapshot);
  const found = attachments.flatMap((attachment) => traceUses(attachment, snapshot)).map(bounded);
  const unique = new Map(found.map((fact) => [factIdentity(fact), fact]));
  const open = doubts.map((doubt) => ({ ...doubt, connections: doubt.connections.slice(0, CONNECTIONS_PER_FACT_MAX) }));
  return factsOf([...unique.values()], [...snapshot.gaps, ...open]);
};

/**
 * Looks at the host once and answers for every target, in their order.
 * @param deviceAddresses addresses of the device that its URIs may not name, such as the far end of the control connection
 */
export const inspectHost = async (
  probe: HostProbe,
  targets: readonly InquiryTarget[],
  deviceAddresses: readonly string[],
): Promise<readonly VolumeFacts[]> => {
  const names = hostNamesOf(targets);
  const resolved = await Promise.all(names.map(async (name) => [name, await probe.tools.addresses(name)] as const));
  const addresses = new Map(resolved);
  const servers = targets.map((target) => targetServer(target, addresses, deviceAddresses));
  const snapshot = await takeSnapshot(probe, (socket) => leadsToServer(socket, servers));
  return targets.map((target, index) => {
    const server = servers[index];
    if (server === undefined) throw new Error('a target without its server');
    return { volume: target.volume, facts: factsFor(server, snapshot) };
  });
};
