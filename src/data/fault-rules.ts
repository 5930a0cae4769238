/**
 * Test volumes that misbehave on purpose: rules that make a leg's reads, writes or flushes fail or take longer.
 *
 * A rule's counters are shared by all workers: whether the n-th matching request is struck depends on the seed and n
 * alone, so a run with one connection repeats exactly. Counters: 0 matches so far, 1 hits so far, 2 hits left (-1: no end).
 * A rule that has no hit left does nothing any more: no error, and no latency either.
 */
import type { FaultRule } from '../engine/api.ts';
import type { FaultCounters } from './plane-api.ts';

export const FAULT_COUNTER_WORDS = 3;
export type FaultOperation = 'read' | 'write' | 'flush';

/** A rule as a worker has it. */
export type ActiveFault = { readonly rule: FaultRule; readonly counters: Int32Array };

/** A number in [0, 1) from a seed and a position: integer mixing, no state. */
const chance = (seed: number, position: number): number => {
  let value = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) + Math.imul(position + 1, 0xc2b2ae35);
  value ^= value >>> 16;
  value = Math.imul(value, 0x7feb352d);
  value ^= value >>> 15;
  value = Math.imul(value, 0x846ca68b);
  value ^= value >>> 16;
  return (value >>> 0) / 2 ** 32;
};

const matches = (rule: FaultRule, operation: FaultOperation, offset: number, length: number): boolean =>
  (rule.error === 'any' || rule.error === operation) &&
  (operation === 'flush' || (offset < rule.offset + rule.length && offset + length > rule.offset));

export const countersOf = (counters: Int32Array): FaultCounters => {
  const left = Atomics.load(counters, 2);
  return { hits: Atomics.load(counters, 1), left: left < 0 ? null : left };
};

const isExpired = ({ counters }: ActiveFault): boolean => Atomics.load(counters, 2) === 0;

/** Takes one hit of the rule, if it has one left. */
const strike = (fault: ActiveFault): boolean => {
  const { counters, rule } = fault;
  const position = Atomics.add(counters, 0, 1);
  if (rule.rate < 1 && chance(rule.seed, position) >= rule.rate) return false;
  for (;;) {
    const left = Atomics.load(counters, 2);
    if (left === 0) return false;
    if (left < 0 || Atomics.compareExchange(counters, 2, left, left - 1) === left) break;
  }
  Atomics.add(counters, 1, 1);
  return true;
};

/** The error that the first striking rule gives the request, or an empty string. */
export const faultError = (faults: readonly ActiveFault[], operation: FaultOperation, offset: number, length: number): string => {
  for (const fault of faults) {
    if (fault.rule.errno === 'none' || !matches(fault.rule, operation, offset, length)) continue;
    if (strike(fault)) return fault.rule.errno;
  }
  return '';
};

/** Milliseconds that the request has to wait before it is carried out. A rule with an error delays whatever it may strike. */
export const faultLatencyMs = (faults: readonly ActiveFault[], operation: FaultOperation, offset: number, length: number): number => {
  let latencyMs = 0;
  for (const fault of faults) {
    if (fault.rule.latencyMs === 0 || isExpired(fault) || !matches(fault.rule, operation, offset, length)) continue;
    if (fault.rule.errno !== 'none' || strike(fault)) latencyMs = Math.max(latencyMs, fault.rule.latencyMs);
  }
  return latencyMs;
};

/** A rule that fails everything, for a volume that is gone. */
export const alwaysFails = (volume: number): ActiveFault => {
  const rule = {
    id: 0,
    volume,
    error: 'any',
    errno: 'EIO',
    offset: 0,
    length: Number.MAX_SAFE_INTEGER,
    rate: 1,
    latencyMs: 0,
    count: null,
    seed: 0,
    hits: 0,
    expired: false,
  } as const;
  return { rule, counters: Int32Array.of(0, 0, -1) };
};
