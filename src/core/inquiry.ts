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

/** The input by what it is looked up by: a group's inquiry has hosts times volumes answers, and each is looked at once. */
type Evidence = {
  readonly hosts: ReadonlyMap<number, ReadonlySet<string>>;
  /** By volume, then by host. */
  readonly answers: ReadonlyMap<number, ReadonlyMap<string, readonly HostAnswer[]>>;
  readonly connections: ReadonlyMap<number, readonly LiveConnection[]>;
  readonly byRef: ReadonlyMap<string, readonly LiveConnection[]>;
};

const pushTo = <Key, Value>(lists: Map<Key, Value[]>, key: Key, value: Value): void => {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
};

const evidenceOf = ({ asked, answers, connections }: VerdictInput): Evidence => {
  const hosts = new Map<number, Set<string>>();
  const hostsOf = (volume: number): Set<string> => {
    const known = hosts.get(volume) ?? new Set();
    hosts.set(volume, known);
    return known;
  };
  for (const { host, volumes } of asked) for (const volume of volumes) hostsOf(volume).add(host);
  const byVolume = new Map<number, Map<string, HostAnswer[]>>();
  for (const answer of answers) {
    hostsOf(answer.volume).add(answer.host);
    const byHost = byVolume.get(answer.volume) ?? new Map<string, HostAnswer[]>();
    byVolume.set(answer.volume, byHost);
    pushTo(byHost, answer.host, answer);
  }
  const ofVolume = new Map<number, LiveConnection[]>();
  const byRef = new Map<string, LiveConnection[]>();
  for (const live of connections) {
    if (live.volume !== null) pushTo(ofVolume, live.volume, live);
    for (const ref of live.refs) pushTo(byRef, ref, live);
  }
  return { hosts, answers: byVolume, connections: ofVolume, byRef };
};

/** The connections that `refs` name and that can be of `host`; a host cannot explain away a connection of another one. */
const connectionsNamed = (refs: readonly string[], host: string, { byRef }: Evidence): readonly LiveConnection[] => {
  const named = new Set(refs.flatMap((ref) => byRef.get(ref) ?? []));
  return [...named].filter((live) => live.host === null || live.host === host).sort((a, b) => a.id - b.id);
};

const useFinding = (target: InquiryTarget, host: string, fact: MountedFact | OpenFact, evidence: Evidence): Finding => {
  const clients = connectionsNamed(fact.connections, host, evidence)
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
const isSettled = (fact: UnknownFact, host: string, evidence: Evidence): boolean => {
  return (
    fact.connections.length > 0 &&
    fact.connections.every((ref) => {
      const named = connectionsNamed([ref], host, evidence);
      return named.length > 0 && named.every((live) => live.volume !== null);
    })
  );
};

const factFinding = (target: InquiryTarget, host: string, fact: HostFact, evidence: Evidence): Finding | null => {
  switch (fact.kind) {
    case 'not-mounted':
      return null;
    case 'mounted':
    case 'open':
      return useFinding(target, host, fact, evidence);
    case 'unknown': {
      if (isSettled(fact, host, evidence)) return null;
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
const hostFindings = (target: InquiryTarget, host: string, evidence: Evidence): readonly Finding[] => {
  const answers = evidence.answers.get(target.volume)?.get(host) ?? [];
  if (answers.length === 0) return [noAnswerFinding(target, host, 'not-asked', 'it was not asked')];
  return answers.flatMap((answer) => {
    if (answer.outcome === 'no-answer') return [noAnswerFinding(target, host, answer.reason, answer.text)];
    if (answer.facts.length === 0) return [noAnswerFinding(target, host, 'garbage', 'its answer is empty')];
    return answer.facts.map((fact) => factFinding(target, host, fact, evidence)).filter((finding) => finding !== null);
  });
};

type Doubt = { readonly host: string; readonly fact: UnknownFact };

/** The doubts of all hosts about the connections of a volume, by what names the connection. */
const doubtsAbout = (target: InquiryTarget, evidence: Evidence): ReadonlyMap<string, readonly Doubt[]> => {
  const doubts = new Map<string, Doubt[]>();
  for (const [host, answers] of evidence.answers.get(target.volume) ?? []) {
    for (const fact of answers.flatMap((answer) => (answer.outcome === 'answered' ? answer.facts : []))) {
      if (fact.kind === 'unknown') for (const ref of fact.connections) pushTo(doubts, ref, { host, fact });
    }
  }
  return doubts;
};

/** What hosts said about a connection that is not one of their findings: the process that holds it, or a denial. */
const holderText = (
  live: LiveConnection,
  target: InquiryTarget,
  evidence: Evidence,
  doubts: ReadonlyMap<string, readonly Doubt[]>,
): { readonly host: string | null; readonly text: string } => {
  const named = live.refs.flatMap((ref) => doubts.get(ref) ?? []).filter(({ host }) => live.host === null || live.host === host);
  const doubt = named.sort((a, b) => (a.host < b.host ? -1 : 1))[0];
  if (doubt !== undefined) return { host: doubt.host, text: `, ${printable(doubt.fact.what)} on host ${printable(doubt.host)}` };
  if (live.host === null) return { host: null, text: ', of no known host' };
  const own = evidence.answers.get(target.volume)?.get(live.host) ?? [];
  const denies = own.some((answer) => answer.outcome === 'answered' && answer.facts.every((fact) => fact.kind === 'not-mounted'));
  const denial = denies ? ', although that host says that it does not use the volume' : '';
  return { host: live.host, text: `, of host ${printable(live.host)}${denial}` };
};

const clientFinding = (
  target: InquiryTarget,
  live: LiveConnection,
  holder: { readonly host: string | null; readonly text: string },
): Finding => {
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

const targetFindings = (target: InquiryTarget, evidence: Evidence): readonly Finding[] => {
  const hosts = evidence.hosts.get(target.volume) ?? [];
  const said = [...hosts].sort().flatMap((host) => hostFindings(target, host, evidence));
  const explained = new Set(said.flatMap((finding) => finding.clients));
  const unexplained = (evidence.connections.get(target.volume) ?? []).filter((live) => !explained.has(live.id));
  if (unexplained.length === 0) return said;
  const doubts = doubtsAbout(target, evidence);
  return [...said, ...unexplained.map((live) => clientFinding(target, live, holderText(live, target, evidence, doubts)))];
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
  const evidence = evidenceOf(input);
  const findings = input.targets.flatMap((target) => {
    const unique = new Map(targetFindings(target, evidence).map((finding) => [`${finding.key} ${finding.identity}`, finding]));
    return [...unique.values()].sort(byImportance);
  });
  return { findings, clear: findings.length === 0 };
};
