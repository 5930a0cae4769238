/**
 * Facts about a host that no file tells: which ends of unix sockets belong together, the sockets of a network namespace
 * in which no process lives, and the addresses of a name. Asks the system's own programs (`ss`, `nsenter`), each with a
 * time limit; a program that is missing or fails gives null, and the caller says that it could not see.
 */
import { execFile } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { findProgram } from './program.ts';

const TOOL_MS_MAX = 1500;
const TOOL_OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

export interface HostTools {
  /** Output of `ss -xnH` inside the network namespace of that file (`/proc/12/ns/net`); null: the caller's own. */
  unixSocketPairs(netNamespace: string | null): Promise<string | null>;
  /** `/proc/net/tcp`, `tcp6` and `unix` of a network namespace that is mounted on a file, in this order. */
  socketTables(netNamespace: string): Promise<{ readonly tcp: string; readonly tcp6: string; readonly unix: string } | null>;
  /** The mount table of a mount namespace that is mounted on a file. */
  mountTable(mountNamespace: string): Promise<string | null>;
  /** The addresses of a host name; an empty list if it has none. */
  addresses(hostName: string): Promise<readonly string[]>;
}

const outputOf = (program: string, args: readonly string[]): Promise<string | null> => {
  const path = findProgram(program);
  if (path === null) return Promise.resolve(null);
  const limits = { timeout: TOOL_MS_MAX, maxBuffer: TOOL_OUTPUT_BYTES_MAX, killSignal: 'SIGKILL', encoding: 'utf8' } as const;
  return new Promise((resolve) => {
    execFile(path, args, limits, (error, stdout) => resolve(error === null ? stdout : null));
  });
};

export class SystemTools implements HostTools {
  unixSocketPairs(netNamespace: string | null): Promise<string | null> {
    if (netNamespace === null) return outputOf('ss', ['-xnH']);
    return outputOf('nsenter', [`--net=${netNamespace}`, findProgram('ss') ?? 'ss', '-xnH']);
  }

  async socketTables(netNamespace: string): Promise<{ readonly tcp: string; readonly tcp6: string; readonly unix: string } | null> {
    const read = (table: string): Promise<string | null> =>
      outputOf('nsenter', [`--net=${netNamespace}`, 'cat', `/proc/thread-self/net/${table}`]);
    const [tcp, tcp6, unix] = await Promise.all([read('tcp'), read('tcp6'), read('unix')]);
    // A kernel without IPv6 has no tcp6: its absence hides nothing.
    return tcp === null || unix === null ? null : { tcp, tcp6: tcp6 ?? '', unix };
  }

  mountTable(mountNamespace: string): Promise<string | null> {
    return outputOf('nsenter', [`--mount=${mountNamespace}`, 'cat', '/proc/self/mountinfo']);
  }

  async addresses(hostName: string): Promise<readonly string[]> {
    const late = new Promise<readonly string[]>((resolve) => {
      setTimeout(() => resolve([]), TOOL_MS_MAX).unref();
    });
    const found = lookup(hostName, { all: true }).then(
      (entries) => entries.map((entry) => entry.address),
      () => [],
    );
    return Promise.race([found, late]);
  }
}
