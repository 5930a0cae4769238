/**
 * How much of a range holds data, as the server tells it. Reading what was never written is quick everywhere and says
 * nothing about reading data, so a benchmark that reads mostly holes has to say so.
 */
import type { NbdClient } from '../nbd-client/nbd-client.ts';
import { NbdError } from '../nbd-client/nbd-error.ts';

const ASK_MS_MAX = 1000;
const ALLOCATION = 'base:allocation';
/** NBD_STATE_HOLE (NBD specification, "base:allocation"). */
const HOLE = 1;

/** 0 to 1; null when the server does not say, or not soon enough. */
export const dataShare = async (client: NbdClient, offset: number, length: number): Promise<number | null> => {
  const signal = AbortSignal.timeout(ASK_MS_MAX);
  try {
    if (!client.info.metaContexts.includes(ALLOCATION)) return null;
    const align = client.info.blockSizes.minimumBytes;
    const whole = Math.floor(length / align) * align;
    const extents = (await client.blockStatus(offset, whole, { signal })).get(ALLOCATION) ?? [];
    let data = 0;
    for (const extent of extents) if ((extent.flags & HOLE) === 0) data += extent.length;
    return whole === 0 ? null : data / whole;
  } catch (error) {
    if (error instanceof NbdError) return null;
    throw error;
  }
};
