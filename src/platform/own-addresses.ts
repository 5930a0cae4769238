/** The network addresses of this machine, as its interfaces have them now. Numbers only: a name may not be known elsewhere. */
import { networkInterfaces } from 'node:os';

/** Link-local IPv6 addresses need a zone, which is another one on each host; they are left out. */
export const ownAddresses = (): readonly string[] => {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
  return addresses.filter((address) => !/^fe[89ab]/i.test(address));
};

export const isLoopback = (address: string): boolean => /^127\.\d+\.\d+\.\d+$/.test(address) || address === '::1';
