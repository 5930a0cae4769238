/**
 * The words of the mount inquiry: what an operator reads about a finding (specification 6, step 3).
 *
 * Names, mount points and processes come from other machines, so nothing of theirs reaches a terminal unescaped: control
 * characters and the characters that reorder text are written as `\u{...}`.
 */
import type { HostFact, Layer, MountedFact, OpenFact, ProcessRef } from './mount-facts.ts';
import { SWAP_MOUNT_POINT } from './mount-facts.ts';
import { formatSize } from './units.ts';

const SHOWN_CHARS_MAX = 512;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text of another machine, made safe for a terminal and cut to a readable length. */
export const printable = (text: string): string => {
  const safe = text.replace(UNSAFE, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
  return safe.length <= SHOWN_CHARS_MAX ? safe : `${safe.slice(0, SHOWN_CHARS_MAX)}...`;
};

const LAYER_WORDS: Readonly<Record<Layer['kind'], string>> = {
  connection: 'NBD connection of',
  nbd: 'kernel NBD device',
  ublk: 'ublk device',
  fuse: 'FUSE mount',
  loop: 'loop device',
  partition: 'partition',
  'device-mapper': 'device-mapper volume',
  md: 'md array',
  holder: 'device',
  'file-system': 'a file on',
  swap: 'swap space',
};

const layerText = (layer: Layer): string => `${LAYER_WORDS[layer.kind]} ${printable(layer.name)}`;

/** `loop device /dev/loop0, through ...`: the device is the last of the layers where they lead to one. */
const sourceText = (device: string, layers: readonly Layer[]): string => {
  const last = layers.at(-1);
  const isLast = last !== undefined && last.name === device;
  const below = isLast ? layers.slice(0, -1) : layers;
  const source = isLast ? layerText(last) : printable(device);
  return below.length === 0 ? source : `${source}, through ${below.map(layerText).join(', ')}`;
};

/** `nbdfuse (pid 12)`, or `the kernel`. */
const processText = (process: ProcessRef): string => {
  return process.pid === 0 ? 'the kernel' : `${printable(process.name)} (pid ${process.pid})`;
};

const PROCESSES_SHOWN_MAX = 8;
const processList = (processes: readonly ProcessRef[]): string => {
  const shown = processes.slice(0, PROCESSES_SHOWN_MAX).map(processText);
  const hidden = processes.length - shown.length;
  return hidden > 0 ? `${shown.join(', ')} and ${hidden} more` : shown.join(', ');
};

export const mountedText = (host: string, volumeName: string, fact: MountedFact): string => {
  const where = fact.namespace === null ? '' : `, in the mount namespace of ${printable(fact.namespace)}`;
  const source = `${sourceText(fact.device, fact.layers)}${where}`;
  if (fact.mountPoint === SWAP_MOUNT_POINT) return `host ${printable(host)} swaps to ${volumeName}: ${source}`;
  const how = `${printable(fact.fileSystem)}, ${fact.access === 'ro' ? 'read-only' : 'read-write'}`;
  return `host ${printable(host)} has ${volumeName} mounted at ${printable(fact.mountPoint)} (${how}) from ${source}`;
};

export const openText = (host: string, volumeName: string, fact: OpenFact): string => {
  const verb = fact.processes.length === 1 ? 'holds' : 'hold';
  return `host ${printable(host)} has ${volumeName} open: ${processList(fact.processes)} ${verb} ${sourceText(fact.device, fact.layers)}`;
};

export const unknownText = (host: string, volumeName: string, fact: { readonly what: string; readonly why: string }): string => {
  return `host ${printable(host)} cannot rule out that it uses ${volumeName}: it could not see ${printable(fact.what)} (${printable(fact.why)})`;
};

export const noAnswerText = (host: string, volumeName: string, reason: string): string => {
  return `host ${printable(host)} did not say whether it uses ${volumeName}: ${printable(reason)}`;
};

/** One line for a fact as the mount table shows it. */
export const factText = (host: string, volumeName: string, fact: HostFact): string => {
  switch (fact.kind) {
    case 'mounted':
      return mountedText(host, volumeName, fact);
    case 'open':
      return openText(host, volumeName, fact);
    case 'unknown':
      return unknownText(host, volumeName, fact);
    case 'not-mounted':
      return `host ${printable(host)} does not use ${volumeName}`;
  }
};

/** What would be lost on one volume (specification 6, step 3). Times in milliseconds since 1970; null where not known. */
export type Destruction = {
  readonly volumeName: string;
  readonly regions: number;
  readonly bytes: number;
  readonly firstAtMs: number | null;
  readonly lastAtMs: number | null;
  /** Since when, as a part of a sentence: "since the split", "since it was created". */
  readonly since: string;
  /** Nobody has counted what was written: it is at most this. */
  readonly isAtMost?: boolean;
};

const timeText = (atMs: number): string => new Date(atMs).toISOString().replace(/\.\d+Z$/, 'Z');

/** What would be lost: "what was written on copy since the split: 1 MiB in 16 regions, first at ..., last at ...". */
export const lossText = ({ volumeName, regions, bytes, firstAtMs, lastAtMs, since, isAtMost }: Destruction): string => {
  if (bytes === 0) return `nothing was written on ${volumeName} ${since}`;
  const amount = `${isAtMost === true ? 'up to ' : ''}${formatSize(bytes)} in ${regions} ${regions === 1 ? 'region' : 'regions'}`;
  const times = [firstAtMs === null ? '' : `, first at ${timeText(firstAtMs)}`, lastAtMs === null ? '' : `, last at ${timeText(lastAtMs)}`];
  return `what was written on ${volumeName} ${since}: ${amount}${times.join('')}`;
};

export const destructionText = (destruction: Destruction): string =>
  destruction.bytes === 0 ? lossText(destruction) : `going on destroys ${lossText(destruction)}`;

/** The same where nobody has said that anything is to be done. */
export const previewText = (destruction: Destruction): string =>
  destruction.bytes === 0 ? lossText(destruction) : `a resync of its pair would destroy ${lossText(destruction)}`;

/**
 * All lines of a warning: a line for each finding, then what would be destroyed. Without colour and without the word
 * "WARNING", which the interface puts before each; none where nothing was found.
 */
export const warningLines = (
  findings: ReadonlyArray<{ readonly text: string }>,
  destructions: readonly Destruction[],
): readonly string[] => {
  if (findings.length === 0) return [];
  return [...findings.map((finding) => finding.text), ...destructions.map(destructionText)];
};
