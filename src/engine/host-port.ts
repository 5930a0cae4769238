/** A TCP address as people type it: `HOST:PORT`, `:PORT` (every address), `[IPV6]:PORT`, or a port on loopback. */
import { TwinvolError } from '../core/faults.ts';

export type HostPort = { readonly host: string; readonly port: number };

/** @throws TwinvolError `USAGE` */
export const parseHostPort = (text: string): HostPort => {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new TwinvolError('USAGE', `"${text}" is no TCP address`, {
      remedy: 'give HOST:PORT, such as 127.0.0.1:10809 or [::1]:10809; port 0 takes a free one',
    });
  }
  const named = match[1] ?? match[2];
  return { host: named === undefined ? '127.0.0.1' : named === '' ? '0.0.0.0' : named, port };
};
