/**
 * The verdict of a mount inquiry (specification 6, steps 2 and 3): from the hosts' answers and the live NBD connections
 * to what the operator has to decide about.
 *
 * Pure. `clear` holds only if every host that was to be asked answered for every volume, without any use and without a
 * doubt that is left, and nobody has a connection to a volume asked about. A host and volume with no answer in the input
 * is a finding like silence, so a mistake of the caller cannot become permission.
 *
 * A live connection outweighs a statement: a host that says "not mounted" while a connection of its own is open is
 * contradicted, and the connection is the finding. Where a host names the connection through which it uses the volume,
 * the two are one finding; the ends recognise each other by `ConnectionRef`.
 */
import type { Asked } from './inquiry-round.ts';
import { mountedText, noAnswerText, openText, printable, unknownText } from './inquiry-text.ts';
import type { HostAnswer, HostFact, InquiryTarget, Layer, MountedFact, OpenFact, ProcessRef, UnknownFact } from './mount-facts.ts';
import { factIdentity } from './mount-facts.ts';
import type { HostAccess } from './rows.ts';

/** An NBD connection to the device, as the device sees it. */
export type LiveConnection = {
  readonly id: number;
  /** null while the handshake has not yet named a volume. */
  readonly volume: number | null;
  /** The host that the connection proved to be of; null for nobody known. */
  readonly host: string | null;
  readonly peer: string;
  /** Every name under which a host may speak of this connection. */
  readonly refs: readonly string[];
};

export const FINDING_KINDS = ['mounted', 'open', 'client', 'unknown', 'no-answer'] as const;
export type FindingKind = (typeof FINDING_KINDS)[number];

export type Finding = {
  /** What an override names: `mounted:HOST`, `open:HOST`, `unknown:HOST`, `no-answer:HOST` or `client:ID`. Several findings may share one. */
  readonly key: string;
  readonly kind: FindingKind;
  readonly volume: number;
  /** null for a connection of nobody known. */
  readonly host: string | null;
  /** One line for people, safe for a terminal. */
  readonly text: string;
  readonly device: string | null;
  readonly mountPoint: string | null;
  readonly fileSystem: string | null;
  readonly access: HostAccess | null;
  readonly layers: readonly Layer[];
  readonly processes: readonly ProcessRef[];
  /** Connection ids of the device that belong to this finding. */
  readonly clients: readonly number[];
  /** The same for the same fact at any time: what a consent is bound to. */
  readonly identity: string;
};

export type Verdict = {
  readonly findings: readonly Finding[];
  readonly clear: boolean;
};

export type VerdictInput = {
  readonly targets: readonly InquiryTarget[];
  /** Who has to answer about what: hosts that can reach the volumes. */
  readonly asked: readonly Asked[];
  readonly answers: readonly HostAnswer[];
  /** All connections of the device, not only those to the targets: they settle doubts about others. */
  readonly connections: readonly LiveConnection[];
};

const BARE = { device: null, mountPoint: null, fileSystem: null, access: null, layers: [], processes: [], clients: [] } as const;

/** The connections that `refs` name and that can be of `host`; a host cannot explain away a connection of another one. */
const connectionsNamed = (refs: readonly string[], host: string, connections: readonly LiveConnection[]): readonly LiveConnection[] => {
  return connections.filter((live) => (live.host === null || live.host === host) && live.refs.some((ref) => refs.includes(ref)));
};

const useFinding = (target: InquiryTarget, host: string, fact: MountedFact | OpenFact, connections: readonly LiveConnection[]): Finding => {
  const clients = connectionsNamed(fact.connections, host, connections)
    .filter((live) => live.volume === target.volume)
    .map((live) => live.id);
  const shared = { volume: target.volume, host, device: fact.device, layers: fact.layers, clients, identity: factIdentity(fact) };
  if (fact.kind === 'open') {
    const text = openText(host, target.name, fact);
    return { ...BARE, ...shared, key: `open:${host}`, kind: 'open', text, processes: fact.processes };
  }
  const { mountPoint, fileSystem, access } = fact;
  const text = mountedText(host, target.name, fact);
  return { ...BARE, ...shared, key: `mounted:${host}`, kind: 'mounted', text, mountPoint, fileSystem, access };
};

/** A doubt about connections is settled when the device knows the volume of each; what they are is then no doubt. */
const isSettled = (fact: UnknownFact, host: string, connections: readonly LiveConnection[]): boolean => {
  return (
    fact.connections.length > 0 &&
    fact.connections.every((ref) => {
      const named = connectionsNamed([ref], host, connections);
      return named.length > 0 && named.every((live) => live.volume !== null);
    })
  );
};

const factFinding = (target: InquiryTarget, host: string, fact: HostFact, connections: readonly LiveConnection[]): Finding | null => {
  switch (fact.kind) {
    case 'not-mounted':
      return null;
    case 'mounted':
    case 'open':
      return useFinding(target, host, fact, connections);
    case 'unknown': {
      if (isSettled(fact, host, connections)) return null;
      const text = unknownText(host, target.name, fact);
      return { ...BARE, key: `unknown:${host}`, kind: 'unknown', volume: target.volume, host, text, identity: factIdentity(fact) };
    }
  }
};

const noAnswerFinding = (target: InquiryTarget, host: string, reason: string, text: string): Finding => {
  const identity = JSON.stringify(['no-answer', reason]);
  const shown = noAnswerText(host, target.name, text);
  return { ...BARE, key: `no-answer:${host}`, kind: 'no-answer', volume: target.volume, host, text: shown, identity };
};

/** Findings about one host and one volume. */
const hostFindings = (target: InquiryTarget, host: string, input: VerdictInput): readonly Finding[] => {
  const answers = input.answers.filter((answer) => answer.host === host && answer.volume === target.volume);
  if (answers.length === 0) return [noAnswerFinding(target, host, 'not-asked', 'it was not asked')];
  return answers.flatMap((answer) => {
    if (answer.outcome === 'no-answer') return [noAnswerFinding(target, host, answer.reason, answer.text)];
    if (answer.facts.length === 0) return [noAnswerFinding(target, host, 'garbage', 'its answer is empty')];
    return answer.facts.map((fact) => factFinding(target, host, fact, input.connections)).filter((finding) => finding !== null);
  });
};

/** What hosts said about a connection that is not one of their findings: the process that holds it, or a denial. */
const holderText = (
  live: LiveConnection,
  target: InquiryTarget,
  input: VerdictInput,
): { readonly host: string | null; readonly text: string } => {
  const answers = input.answers.filter((answer) => answer.volume === target.volume && answer.outcome === 'answered');
  const names = (fact: HostFact): boolean => fact.kind === 'unknown' && fact.connections.some((ref) => live.refs.includes(ref));
  for (const answer of answers) {
    if (answer.outcome !== 'answered' || (live.host !== null && live.host !== answer.host)) continue;
    const fact = answer.facts.find(names);
    if (fact?.kind === 'unknown') return { host: answer.host, text: `, ${printable(fact.what)} on host ${printable(answer.host)}` };
  }
  if (live.host === null) return { host: null, text: ', of no known host' };
  const denies = answers.some((answer) => {
    return answer.host === live.host && answer.outcome === 'answered' && answer.facts.every((fact) => fact.kind === 'not-mounted');
  });
  const denial = denies ? ', although that host says that it does not use the volume' : '';
  return { host: live.host, text: `, of host ${printable(live.host)}${denial}` };
};

const clientFinding = (target: InquiryTarget, live: LiveConnection, input: VerdictInput): Finding => {
  const holder = holderText(live, target, input);
  const text = `NBD connection ${live.id} (${printable(live.peer)}) to ${target.name} is open${holder.text}`;
  const identity = JSON.stringify(['client', live.id]);
  return {
    ...BARE,
    key: `client:${live.id}`,
    kind: 'client',
    volume: target.volume,
    host: holder.host,
    text,
    clients: [live.id],
    identity,
  };
};

const targetFindings = (target: InquiryTarget, input: VerdictInput): readonly Finding[] => {
  const hosts = new Set(input.asked.filter((asked) => asked.volumes.includes(target.volume)).map((asked) => asked.host));
  for (const answer of input.answers) if (answer.volume === target.volume) hosts.add(answer.host);
  const said = [...hosts].sort().flatMap((host) => hostFindings(target, host, input));
  const explained = new Set(said.flatMap((finding) => finding.clients));
  const unexplained = input.connections.filter((live) => live.volume === target.volume && !explained.has(live.id));
  return [...said, ...unexplained.map((live) => clientFinding(target, live, input))];
};

const byImportance = (a: Finding, b: Finding): number => {
  const rank = FINDING_KINDS.indexOf(a.kind) - FINDING_KINDS.indexOf(b.kind);
  if (rank !== 0) return rank;
  const left = `${a.key} ${a.identity}`;
  const right = `${b.key} ${b.identity}`;
  return left < right ? -1 : left > right ? 1 : 0;
};

/** The verdict for all targets: findings by volume in the order of the targets, the gravest first, none twice. */
export const verdictOf = (input: VerdictInput): Verdict => {
  const findings = input.targets.flatMap((target) => {
    const unique = new Map(targetFindings(target, input).map((finding) => [`${finding.key} ${finding.identity}`, finding]));
    return [...unique.values()].sort(byImportance);
  });
  return { findings, clear: findings.length === 0 };
};
