/** `/etc/nbdtab`: which kernel NBD device nbd-client attaches to which export (nbdtab(5)). Pure parser. */
import type { NbdEndpoint } from './nbd-endpoint.ts';
import { NBD_PORT_DEFAULT } from './nbd-endpoint.ts';

/** `DEVICE HOST EXPORT [OPTIONS]` a line, `#` for comments. Device names are those of `/sys/block`. */
export const parseNbdtab = (text: string): ReadonlyMap<string, NbdEndpoint> => {
  const endpoints = new Map<string, NbdEndpoint>();
  for (const line of text.split('\n')) {
    const [device, host, exportName, optionText] = line.replace(/#.*$/, '').trim().split(/\s+/);
    if (device === undefined || host === undefined || exportName === undefined) continue;
    const options = (optionText ?? '').split(',');
    const port = Number(options.find((option) => option.startsWith('port='))?.slice('port='.length) ?? NBD_PORT_DEFAULT);
    const isUnix = options.includes('unix') || host.startsWith('/');
    const server = isUnix ? ({ transport: 'unix', path: host } as const) : ({ transport: 'tcp', host, port } as const);
    endpoints.set(device.replace(/^\/dev\//, ''), { server, exportName });
  }
  return endpoints;
};
