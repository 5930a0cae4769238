/**
 * Messages between a host's agent and the device: one JSON object a line, UTF-8, ended by a newline.
 *
 *   agent  -> device: hello, answer, failed, report, pong
 *   device -> agent:  welcome, refused, inquiry, watch, ping
 *
 * Pure: bytes in and messages out. Neither side trusts the other: every field is checked here and nowhere else, lengths
 * and counts are bounded before anything is kept, fields that are not known are dropped. A line that is no message is a
 * stated fault, after which the stream is not to be trusted. A message of a type that is not known is skipped, so that a
 * newer side can speak to an older one.
 */
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { HostFact, InquiryTarget, Layer, LayerKind, ProcessRef } from '../core/mount-facts.ts';
import { areFactsSound, FACTS_PER_VOLUME_MAX, LAYER_KINDS } from '../core/mount-facts.ts';
import { CAPACITY_BYTES_MAX, MiB, VOLUME_COUNT_MAX } from '../core/units.ts';

/** Name of the agents' unix socket, beside the control socket. */
export const AGENT_SOCKET_NAME: string = 'agents.sock';

export const AGENT_PROTOCOL_VERSION: number = 1;
/** The longest line from an agent that has not yet proved who it is. */
export const HELLO_LINE_BYTES_MAX: number = 16 * 1024;
/** The longest line of either side afterwards. */
export const AGENT_LINE_BYTES_MAX: number = 4 * MiB;

/** What a message has besides its targets, at most. */
const TARGETS_AROUND_BYTES = 4096;

const TEXT_CHARS_MAX = 4096;
export const LAYERS_PER_FACT_MAX: number = 64;
export const PROCESSES_PER_FACT_MAX: number = 256;
export const CONNECTIONS_PER_FACT_MAX: number = 1024;
/** URIs of one volume: each place of the device comes twice, by the volume's name and by its number. */
export const URIS_MAX: number = 256;
/** Volumes of one inquiry, answer, watch or report. */
export const VOLUMES_PER_MESSAGE_MAX: number = 4096;

export type AgentHello = {
  readonly type: 'hello';
  readonly version: number;
  readonly host: string;
  /** The enrolment token; may be left out where a certificate proves the name. */
  readonly token?: string;
  readonly pid: number;
  /** Whether the agent runs as root, and so sees what other users have open. */
  readonly isPrivileged: boolean;
};
export type AgentAnswer = { readonly type: 'answer'; readonly id: string; readonly findings: readonly VolumeFacts[] };
/** The agent could not carry out the inquiry. */
export type AgentFailed = { readonly type: 'failed'; readonly id: string; readonly text: string };
/** What is in use now of the volumes watched: sent after the welcome and whenever it changes. */
export type AgentReport = { readonly type: 'report'; readonly findings: readonly VolumeFacts[] };
export type AgentPong = { readonly type: 'pong' };
export type FromAgent = AgentHello | AgentAnswer | AgentFailed | AgentReport | AgentPong;

export type AgentWelcome = {
  readonly type: 'welcome';
  readonly version: number;
  readonly host: string;
  readonly watch: readonly InquiryTarget[];
  /** The device pings this often; an agent that hears nothing for three times as long connects anew. */
  readonly pingMs: number;
};
export type AgentRefused = { readonly type: 'refused'; readonly code: string; readonly text: string };
export type AgentInquiry = {
  readonly type: 'inquiry';
  readonly id: string;
  readonly targets: readonly InquiryTarget[];
  readonly deadlineMs: number;
};
export type AgentWatch = { readonly type: 'watch'; readonly targets: readonly InquiryTarget[] };
export type AgentPing = { readonly type: 'ping' };
export type ToAgent = AgentWelcome | AgentRefused | AgentInquiry | AgentWatch | AgentPing;

/** A line that is no message; `skipped` is a well-formed message of a type that this version does not know. */
export type AgentMalformed = { readonly type: 'malformed'; readonly text: string };
export type AgentSkipped = { readonly type: 'skipped' };

type Fields = Readonly<Record<string, unknown>>;

/** Thrown inside this file only; becomes a `malformed` message. */
class FieldError extends Error {}

const fieldsOf = (value: unknown, name: string): Fields => {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw new FieldError(`${name} is not an object`);
};

const text = (fields: Fields, name: string, charsMax: number = TEXT_CHARS_MAX): string => {
  const value = fields[name];
  if (typeof value === 'string' && value.length <= charsMax) return value;
  throw new FieldError(`"${name}" is not a text of at most ${charsMax} characters`);
};

const whole = (fields: Fields, name: string, max: number): number => {
  const value = fields[name];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
  throw new FieldError(`"${name}" is not a whole number from 0 to ${max}`);
};

const flag = (fields: Fields, name: string): boolean => {
  const value = fields[name];
  if (typeof value === 'boolean') return value;
  throw new FieldError(`"${name}" is not true or false`);
};

const list = <T>(fields: Fields, name: string, countMax: number, item: (value: unknown) => T): readonly T[] => {
  const value = fields[name];
  if (Array.isArray(value) && value.length <= countMax) return value.map(item);
  throw new FieldError(`"${name}" is not a list of at most ${countMax}`);
};

const plainText = (value: unknown): string => text({ item: value }, 'item');

const layerOf = (value: unknown): Layer => {
  const fields = fieldsOf(value, 'a layer');
  const kind = LAYER_KINDS.find((known: LayerKind) => known === fields['kind']);
  if (kind === undefined) throw new FieldError('a layer of an unknown kind');
  return { kind, name: text(fields, 'name') };
};

const processOf = (value: unknown): ProcessRef => {
  const fields = fieldsOf(value, 'a process');
  return { name: text(fields, 'name'), pid: whole(fields, 'pid', CAPACITY_BYTES_MAX) };
};

const factOf = (value: unknown): HostFact => {
  const fields = fieldsOf(value, 'a fact');
  const connections = (): readonly string[] => list(fields, 'connections', CONNECTIONS_PER_FACT_MAX, plainText);
  const layers = (): readonly Layer[] => list(fields, 'layers', LAYERS_PER_FACT_MAX, layerOf);
  switch (fields['kind']) {
    case 'not-mounted':
      return { kind: 'not-mounted' };
    case 'unknown':
      return { kind: 'unknown', what: text(fields, 'what'), why: text(fields, 'why'), connections: connections() };
    case 'open': {
      const processes = list(fields, 'processes', PROCESSES_PER_FACT_MAX, processOf);
      return { kind: 'open', device: text(fields, 'device'), layers: layers(), processes, connections: connections() };
    }
    case 'mounted': {
      const access = fields['access'];
      if (access !== 'ro' && access !== 'rw') throw new FieldError('"access" is neither "ro" nor "rw"');
      const namespace = fields['namespace'] === null ? null : text(fields, 'namespace');
      const place = { device: text(fields, 'device'), mountPoint: text(fields, 'mountPoint'), fileSystem: text(fields, 'fileSystem') };
      return { kind: 'mounted', ...place, access, layers: layers(), namespace, connections: connections() };
    }
    default:
      throw new FieldError('a fact of an unknown kind');
  }
};

const volumeFactsOf = (value: unknown): VolumeFacts => {
  const fields = fieldsOf(value, 'a finding');
  const facts = list(fields, 'facts', FACTS_PER_VOLUME_MAX, factOf);
  if (!areFactsSound(facts)) throw new FieldError('facts that are empty, or "not-mounted" beside others');
  return { volume: whole(fields, 'volume', VOLUME_COUNT_MAX), facts };
};

const targetOf = (value: unknown): InquiryTarget => {
  const fields = fieldsOf(value, 'a target');
  const uris = list(fields, 'uris', URIS_MAX, plainText);
  return { volume: whole(fields, 'volume', VOLUME_COUNT_MAX), name: text(fields, 'name'), uris };
};

const DELAY_MS_MAX = 24 * 60 * 60 * 1000;
const findings = (fields: Fields): readonly VolumeFacts[] => list(fields, 'findings', VOLUMES_PER_MESSAGE_MAX, volumeFactsOf);
const targets = (fields: Fields, name: string): readonly InquiryTarget[] => list(fields, name, VOLUMES_PER_MESSAGE_MAX, targetOf);

const fromAgent = (fields: Fields): FromAgent | AgentSkipped => {
  switch (fields['type']) {
    case 'hello': {
      const token = fields['token'] === undefined ? {} : { token: text(fields, 'token', 512) };
      const version = whole(fields, 'version', 1_000_000);
      const who = {
        host: text(fields, 'host', 256),
        pid: whole(fields, 'pid', CAPACITY_BYTES_MAX),
        isPrivileged: flag(fields, 'isPrivileged'),
      };
      return { type: 'hello', version, ...who, ...token };
    }
    case 'answer':
      return { type: 'answer', id: text(fields, 'id', 64), findings: findings(fields) };
    case 'failed':
      return { type: 'failed', id: text(fields, 'id', 64), text: text(fields, 'text') };
    case 'report':
      return { type: 'report', findings: findings(fields) };
    case 'pong':
      return { type: 'pong' };
    default:
      text(fields, 'type');
      return { type: 'skipped' };
  }
};

const toAgent = (fields: Fields): ToAgent | AgentSkipped => {
  switch (fields['type']) {
    case 'welcome': {
      const place = { version: whole(fields, 'version', 1_000_000), host: text(fields, 'host', 256), watch: targets(fields, 'watch') };
      return { type: 'welcome', ...place, pingMs: whole(fields, 'pingMs', DELAY_MS_MAX) };
    }
    case 'refused':
      return { type: 'refused', code: text(fields, 'code', 64), text: text(fields, 'text') };
    case 'inquiry':
      return {
        type: 'inquiry',
        id: text(fields, 'id', 64),
        targets: targets(fields, 'targets'),
        deadlineMs: whole(fields, 'deadlineMs', DELAY_MS_MAX),
      };
    case 'watch':
      return { type: 'watch', targets: targets(fields, 'targets') };
    case 'ping':
      return { type: 'ping' };
    default:
      text(fields, 'type');
      return { type: 'skipped' };
  }
};

const parsed = <T>(line: string, read: (fields: Fields) => T): T | AgentMalformed => {
  try {
    return read(fieldsOf(JSON.parse(line), 'the message'));
  } catch (error) {
    if (error instanceof FieldError) return { type: 'malformed', text: error.message };
    if (error instanceof SyntaxError) return { type: 'malformed', text: 'the line is not JSON' };
    throw error;
  }
};

export const parseFromAgent = (line: string): FromAgent | AgentSkipped | AgentMalformed => parsed(line, fromAgent);
export const parseToAgent = (line: string): ToAgent | AgentSkipped | AgentMalformed => parsed(line, toAgent);

/** Null for what no line can carry: sending it would end the connection, and after it the next one in the same way. */
export const encodeAgentMessage = (message: FromAgent | ToAgent): string | null => {
  const line = JSON.stringify(message);
  return Buffer.byteLength(line) > AGENT_LINE_BYTES_MAX ? null : `${line}\n`;
};

/** As many of the targets, from the first on, as one message carries. */
export const targetsForMessage = (all: readonly InquiryTarget[]): readonly InquiryTarget[] => {
  let bytes = TARGETS_AROUND_BYTES;
  let count = 0;
  for (; count < all.length && count < VOLUMES_PER_MESSAGE_MAX; count += 1) {
    bytes += Buffer.byteLength(JSON.stringify(all[count])) + 1;
    if (bytes > AGENT_LINE_BYTES_MAX) break;
  }
  return count === all.length ? all : all.slice(0, count);
};
