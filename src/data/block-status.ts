/**
 * BLOCK_STATUS of an export: `base:allocation` from the file system's own knowledge of holes, and the dirty bitmap of
 * the export's pair (`twinvol:dirty`, `qemu:dirty-bitmap:NAME`).
 */
import { nextClear, nextSet } from '../core/dirty-bitmap.ts';
import { BlockStatusWriter } from '../wire/nbd-block-status.ts';
import { NBD_REPLY_FLAG_DONE, NBD_STATE_DIRTY, NBD_STATE_HOLE, NBD_STATE_ZERO } from '../wire/nbd-constants.ts';
import type { NbdRequest } from '../wire/nbd-transmission.ts';
import type { Session } from './connection.ts';
import type { Lane } from './lane.ts';
import type { Leg } from './leg.ts';
import { truthLeg } from './write-path.ts';

/** Room for one context's chunk: some 2,000 extents, then the client asks again. */
const CONTEXT_BYTES: number = 32 * 1024;
const CONTEXTS_MAX = 3;
/** Where looking for holes means reading, one reply describes this much: a lane has others to serve. */
const SCAN_BYTES_MAX: number = 16 * 1024 * 1024;
export const STATUS_BYTES_MAX: number = CONTEXT_BYTES * CONTEXTS_MAX;

const writer = new BlockStatusWriter();

/** Writes the chunks of all contexts. @returns the position behind them */
export const replyBlockStatus = (lane: Lane, session: Session, request: NbdRequest, out: Buffer, at: number): number => {
  let position = at;
  const last = session.contexts.length - 1;
  for (let id = 0; id <= last; id += 1) {
    writer.begin(out, position, position + CONTEXT_BYTES, session.mode, request, id);
    const scanBytes = lane.findsHolesFast ? request.length : Math.min(request.length, SCAN_BYTES_MAX);
    if (session.contexts[id] === 'allocation') addAllocation(truthLeg(session.volume), request.offset, request.offset + scanBytes);
    else addDirty(lane, session, request.offset, request.offset + request.length);
    position = writer.end(id === last ? NBD_REPLY_FLAG_DONE : 0);
  }
  return position;
};

const addAllocation = (leg: Leg, offset: number, end: number): void => {
  let at = offset;
  while (at < end) {
    const data = leg.nextData(at, end);
    if (data > at && !writer.add(data - at, NBD_STATE_HOLE | NBD_STATE_ZERO)) return;
    if (data >= end) return;
    // At least one byte, whatever the file system says: it may change between the two calls.
    const hole = Math.max(data + 1, leg.nextHole(data, end));
    if (!writer.add(hole - data, 0)) return;
    at = hole;
  }
};

const addDirty = (lane: Lane, session: Session, offset: number, end: number): void => {
  const source = session.grant.dirty;
  const pair = source === null ? undefined : lane.pairs.get(source.pair);
  if (source === null || pair === undefined) {
    // The pair is gone: what changed is not known any more.
    writer.add(end - offset, NBD_STATE_DIRTY);
    return;
  }
  const bits = source.side === 'primary' ? pair.block.primary : pair.block.secondary;
  const bytes = pair.dirtyRegionBytes;
  const { regions } = pair.block;
  let at = offset;
  while (at < end) {
    const region = Math.floor(at / bytes);
    const set = nextSet(bits, region, regions);
    const setAt = set >= regions ? end : Math.min(end, Math.max(at, set * bytes));
    if (setAt > at && !writer.add(setAt - at, 0)) return;
    if (setAt >= end) return;
    const clearAt = Math.min(end, nextClear(bits, set, regions) * bytes);
    if (!writer.add(clearAt - setAt, NBD_STATE_DIRTY)) return;
    at = clearAt;
  }
};
