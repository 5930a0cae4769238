/**
 * The agent's finders on hosts as text: each finds what is mounted, through every layer, and what it cannot see is never
 * taken for nothing.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inspectHost } from '../../../src/agent/inspect.ts';
import { factText } from '../../../src/core/inquiry-text.ts';
import type { HostFact, InquiryTarget } from '../../../src/core/mount-facts.ts';
import type { CaptureOptions } from '../../support/captured-host.ts';
import { capturedHost } from '../../support/captured-host.ts';

const UNIX: InquiryTarget = { volume: 1, name: 'vol1', uris: ['nbd+unix:///vol1?socket=/run/twinvol/nbd.sock'] };
const TCP: InquiryTarget = { volume: 1, name: 'vol1', uris: ['nbd://10.0.0.5:10809/vol1'] };

const factsOn = async (names: readonly string[], target: InquiryTarget, options?: CaptureOptions): Promise<readonly HostFact[]> => {
  using host = await capturedHost(names, options);
  const [facts] = await inspectHost(host.probe, [target], []);
  return facts?.facts ?? [];
};

const layersOf = (fact: HostFact | undefined): string[] =>
  fact?.kind === 'mounted' || fact?.kind === 'open' ? fact.layers.map(({ kind, name }) => `${kind} ${name}`) : [];
const kinds = (facts: readonly HostFact[]): string[] => facts.map((fact) => fact.kind);

describe('a host on which nothing uses the volume', () => {
  it('says so', async () => {
    expect(await factsOn([], UNIX)).toEqual([{ kind: 'not-mounted' }]);
  });

  it('says so also where it uses other volumes of the same server', async () => {
    const other: InquiryTarget = { volume: 9, name: 'vol9', uris: ['nbd+unix:///vol9?socket=/run/twinvol/nbd.sock'] };
    expect(await factsOn(['storage-daemon-fuse'], other)).toEqual([{ kind: 'not-mounted' }]);
    const elsewhere: InquiryTarget = { volume: 1, name: 'vol1', uris: ['nbd://10.0.0.6:10809/vol1'] };
    expect(await factsOn(['kernel-nbd-ioctl'], elsewhere)).toEqual([{ kind: 'not-mounted' }]);
  });
});

describe('kernel NBD attached by a living nbd-client', () => {
  it('is found through partitions, and through LVM on one of them', async () => {
    const facts = await factsOn(['kernel-nbd-ioctl'], TCP);
    expect(kinds(facts)).toEqual(['mounted', 'mounted']);
    expect(facts[0]).toMatchObject({
      mountPoint: '/srv/my data',
      fileSystem: 'ext4',
      access: 'rw',
      device: '/dev/nbd0p1',
      connections: ['tcp:10.0.0.7:49153'],
    });
    expect(layersOf(facts[0])).toEqual(['connection nbd-client (pid 812)', 'nbd /dev/nbd0', 'partition /dev/nbd0p1']);
    expect(facts[1]).toMatchObject({ mountPoint: '/srv/lvm', fileSystem: 'xfs', access: 'ro', device: '/dev/mapper/vg0-data' });
    expect(layersOf(facts[1])).toEqual([
      'connection nbd-client (pid 812)',
      'nbd /dev/nbd0',
      'partition /dev/nbd0p2',
      'device-mapper /dev/mapper/vg0-data',
    ]);
    expect(facts.map((fact) => factText('web1', 'vol1', fact))).toEqual([
      'host web1 has vol1 mounted at /srv/my data (ext4, read-write) from partition /dev/nbd0p1, through NBD connection of nbd-client (pid 812), kernel NBD device /dev/nbd0',
      'host web1 has vol1 mounted at /srv/lvm (xfs, read-only) from device-mapper volume /dev/mapper/vg0-data, through NBD connection of nbd-client (pid 812), kernel NBD device /dev/nbd0, partition /dev/nbd0p2',
    ]);
  });

  it('is found by the number of the volume, and by a name that stands for the same address', async () => {
    const target: InquiryTarget = { volume: 7, name: 'db', uris: ['nbd://storage.example/vol1'] };
    const facts = await factsOn(['kernel-nbd-ioctl'], target, { extra: '-- hosts --\nstorage.example 10.0.0.5\n' });
    expect(kinds(facts)).toEqual(['mounted', 'mounted']);
  });

  it('counts as open while nothing is mounted from it', async () => {
    const [fact, ...rest] = await factsOn(['kernel-nbd-ioctl'], TCP, {
      extra: '-- proc/400/mountinfo --\n28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n',
    });
    expect(fact).toMatchObject({ kind: 'open', device: '/dev/nbd0p1', processes: [{ name: 'nbd-client', pid: 812 }] });
    expect(kinds(rest)).toEqual(['open']);
  });
});

describe('kernel NBD attached through netlink', () => {
  it('is found by nbdtab, through md', async () => {
    const facts = await factsOn(['kernel-nbd-netlink', 'nbdtab'], UNIX);
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: '/srv/mirror', device: '/dev/md127', connections: ['unix:40101'] });
    expect(layersOf(facts[0])).toEqual(['nbd /dev/nbd0', 'md /dev/md127']);
  });

  it('is found by what the attaching program left in backend', async () => {
    const facts = await factsOn(['kernel-nbd-netlink'], UNIX, {
      extra: '-- sys/block/nbd0/backend --\nnbd+unix:///vol1?socket=/run/twinvol/nbd.sock\n',
    });
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: '/srv/mirror' });
  });

  it('is a doubt, with the connection and the device, where nothing names the export', async () => {
    const facts = await factsOn(['kernel-nbd-netlink'], UNIX);
    expect(facts).toEqual([
      {
        kind: 'unknown',
        what: 'who holds a connection to the device (perhaps the kernel, for /dev/nbd0)',
        why: 'no process that the agent can look into',
        connections: ['unix:40101'],
      },
    ]);
  });

  it('is a doubt also where its connection is gone: what is mounted stays mounted', async () => {
    const extra = '-- proc/400/net/unix --\nNum       RefCount Protocol Flags    Type St Inode Path\n-- ss --\n';
    const facts = await factsOn(['kernel-nbd-netlink'], UNIX, { extra });
    expect(facts).toMatchObject([{ kind: 'unknown', what: 'what /dev/nbd0 is attached to', connections: [] }]);
  });

  it('of another server is no concern', async () => {
    const extra = [
      '-- proc/400/net/unix --',
      'Num       RefCount Protocol Flags    Type St Inode Path',
      '0000000000000000: 00000003 00000000 00000000 0001 03 40100',
      '0000000000000000: 00000003 00000000 00000000 0001 03 40101 /run/other.sock',
    ].join('\n');
    expect(await factsOn(['kernel-nbd-netlink'], UNIX, { extra })).toEqual([{ kind: 'not-mounted' }]);
  });
});

describe('qemu-nbd with an encrypted swap device', () => {
  const target: InquiryTarget = { volume: 1, name: 'vol1', uris: ['nbd+unix:///vol1?socket=/var/lib/twinvol/run/nbd.sock'] };

  it('is found by the process of the thread in sysfs, with a socket path relative to its folder', async () => {
    const facts = await factsOn(['qemu-nbd-luks-swap'], target);
    expect(facts).toHaveLength(1);
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: '[swap]', device: '/dev/mapper/luks-swap' });
    expect(layersOf(facts[0])).toEqual([
      'connection qemu-nbd (pid 901)',
      'nbd /dev/nbd2',
      'device-mapper /dev/mapper/luks-swap',
      'swap /dev/mapper/luks-swap',
    ]);
  });

  it('is found without ss as well: its command line names the export', async () => {
    const facts = await factsOn(['qemu-nbd-luks-swap'], target, { withoutTools: true });
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: '[swap]' });
    expect(facts[1]).toMatchObject({ kind: 'unknown', connections: ['unix:50101'] });
  });
});

describe('qemu-storage-daemon with two exports', () => {
  it('is found through FUSE, loop and a btrfs that is mounted from its other device, in a container too', async () => {
    const facts = await factsOn(['storage-daemon-fuse'], UNIX);
    const places = facts.map((fact) => (fact.kind === 'mounted' ? `${fact.mountPoint} ${fact.namespace ?? '-'}` : fact.kind));
    expect(places).toEqual(['/srv/btrfs -', '/data sleep (pid 970)']);
    expect(layersOf(facts[0])).toEqual(['connection qemu-storage-da (pid 950)', 'fuse /srv/export/vol1.raw', 'loop /dev/loop4']);
  });

  it('does not mix up its exports: the other volume is only open', async () => {
    const target: InquiryTarget = { volume: 2, name: 'vol2', uris: ['nbd+unix:///vol2?socket=/run/twinvol/nbd.sock'] };
    const facts = await factsOn(['storage-daemon-fuse'], target);
    expect(facts).toMatchObject([{ kind: 'open', device: '/srv/export/vol2.raw', processes: [{ pid: 950 }] }]);
  });
});

describe('a server whose socket was bound through an open folder, because its path is long', () => {
  it('is the same server', async () => {
    const extra = [
      '-- proc/400/net/unix --',
      '0000000000000000: 00000003 00000000 00000000 0001 03 40100',
      '0000000000000000: 00000003 00000000 00000000 0001 03 40101 /proc/self/fd/21/nbd.sock',
    ].join('\n');
    expect(await factsOn(['kernel-nbd-netlink'], UNIX, { extra })).toMatchObject([{ kind: 'unknown', connections: ['unix:40101'] }]);
  });
});

describe('a relay', () => {
  it('is followed to the process that holds the device at its end', async () => {
    const target: InquiryTarget = { volume: 1, name: 'db', uris: ['nbd://storage.example/db'] };
    const facts = await factsOn(['relay-ublk'], target);
    expect(facts).toMatchObject([
      { kind: 'open', processes: [{ name: 'nbdkit', pid: 600 }], connections: ['tcp:[2001:db8::7]:54321'] },
      { kind: 'open', device: '/dev/ublkb0', processes: [{ name: 'postgres', pid: 620 }] },
    ]);
    expect(layersOf(facts[1])).toEqual(['connection nbdkit (pid 600)', 'connection nbdublk (pid 610)', 'ublk /dev/ublkb0']);
  });
});

describe('a container of its own', () => {
  it("is looked into: its sockets, its mounts, its processes' files", async () => {
    const facts = await factsOn(['container-nbdfuse'], UNIX);
    expect(facts).toMatchObject([
      { kind: 'open', device: '/mnt/vol', processes: [{ name: 'dd if=x', pid: 710 }], connections: ['unix:80004'] },
    ]);
    expect(layersOf(facts[0])).toEqual(['connection nbdfuse (pid 700)', 'fuse /mnt/vol']);
  });
});

describe('what the agent cannot see', () => {
  const strangers = (path: string): boolean => /^\/proc\/(?!400\/|self\/|net\/|399\/)\d+\/(?:fd|ns|cwd|root)/.test(path);

  it('does not make a host doubtful that has no connection to the device', async () => {
    expect(await factsOn([], UNIX, { forbidden: strangers })).toEqual([{ kind: 'not-mounted' }]);
  });

  it('still finds mounts by command lines that anybody may read', async () => {
    const facts = await factsOn(['kernel-nbd-ioctl'], TCP, { forbidden: strangers });
    expect(kinds(facts)).toEqual(['mounted', 'mounted', 'unknown']);
  });

  it('makes a connection a doubt whose holder may not be looked into', async () => {
    const facts = await factsOn(['storage-daemon-fuse'], UNIX, { forbidden: (path) => strangers(path) || path === '/proc/950/cmdline' });
    expect(facts).toMatchObject([{ kind: 'unknown', connections: ['unix:60101', 'unix:60103'] }]);
  });

  it.each([
    ['the mount table', (path: string) => path === '/proc/self/mountinfo'],
    ['the processes', (path: string) => path === '/proc'],
    ['the block devices', (path: string) => path === '/sys/block'],
    ['the network connections', (path: string) => path.startsWith('/proc/net')],
    ["the mount tables of other users' processes", (path: string) => path === '/proc/970/mountinfo'],
  ])('counts as unknown, never as not mounted: %s', async (what, forbidden) => {
    const facts = await factsOn(
      ['storage-daemon-fuse'],
      { volume: 9, name: 'vol9', uris: UNIX.uris.map((uri) => uri.replace('vol1', 'vol9')) },
      { forbidden },
    );
    expect(facts).toContainEqual(expect.objectContaining({ kind: 'unknown', what }));
    expect(kinds(facts)).not.toContain('not-mounted');
  });

  it('is everything outside, for an agent in a container', async () => {
    using host = await capturedHost([], { extra: '-- proc/400/ns/pid -> pid:[4026532999] --\n' });
    const [facts] = await inspectHost(host.probe, [UNIX], []);
    expect(facts?.facts).toMatchObject([{ kind: 'unknown', what: 'processes outside its PID namespace' }]);
    const [own] = await inspectHost({ ...host.probe, scope: 'namespace' }, [UNIX], []);
    expect(own?.facts).toEqual([{ kind: 'not-mounted' }]);
  });

  it('is what hidepid hides, for an agent without the right to see it', async () => {
    const extra = [
      '-- proc/400/mountinfo --',
      '22 28 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible',
      '28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
      '-- proc/400/status --',
      'CapEff:	0000000000000000',
    ].join('\n');
    expect(await factsOn([], UNIX, { extra })).toMatchObject([{ kind: 'unknown', what: "other users' processes" }]);
    const root = extra.replace('CapEff:\t0000000000000000', 'CapEff:\t000001ffffffffff');
    expect(await factsOn([], UNIX, { extra: root })).toEqual([{ kind: 'not-mounted' }]);
  });

  const ownMounts = ['22 28 0:21 / /proc rw,relatime - proc proc rw', '28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw'];
  const kept = [
    '-- proc/400/mountinfo --',
    ...ownMounts,
    '90 28 0:4 net:[4026532111] /run/netns/blue rw shared:7 - nsfs nsfs rw',
    '91 28 0:4 mnt:[4026532112] /run/kept rw shared:7 - nsfs nsfs rw',
    '92 28 0:4 net:[4026531840] /run/netns/own rw shared:7 - nsfs nsfs rw',
  ].join('\n');

  it('is a namespace without processes that cannot be entered', async () => {
    const facts = await factsOn([], UNIX, { extra: kept });
    expect(facts.map((fact) => (fact.kind === 'unknown' ? fact.what : fact.kind))).toEqual([
      'a mount namespace without processes',
      'the network connections of a namespace without processes',
    ]);
  });

  it('is no namespace that is removed while the agent looks', async () => {
    using host = await capturedHost([], { extra: kept });
    const removed = (): Promise<null> => {
      writeFileSync(join(host.root, 'proc/400/mountinfo'), `${ownMounts.join('\n')}\n`);
      return Promise.resolve(null);
    };
    const tools = { ...host.probe.tools, mountTable: removed, socketTables: removed };
    const [facts] = await inspectHost({ ...host.probe, tools }, [UNIX], []);
    expect(facts?.facts).toEqual([{ kind: 'not-mounted' }]);
  });
});

describe('a process that only mentions the volume', () => {
  const shell = (extra: string): string =>
    [
      '-- proc/800/stat --',
      '800 (bash) S 1 800 800 0 -1 4194624 900 0 0 0 1 1 0 0 20 0 1 0 80000 600000000 5000 18446744073709551615 1 1 0 0 0',
      '-- proc/800/cmdline --',
      'bash',
      '-c',
      'sleep 5; nbdinfo nbd+unix:///vol1?socket=/run/twinvol/nbd.sock',
      '-- proc/800/cwd -> / --',
      '-- proc/800/root -> / --',
      '-- proc/800/ns/mnt -> mnt:[4026531841] --',
      '-- proc/800/ns/net -> net:[4026531840] --',
      extra,
    ].join('\n');

  it('does not use it', async () => {
    expect(await factsOn([], UNIX, { extra: shell('') })).toEqual([{ kind: 'not-mounted' }]);
  });

  it('uses it as soon as it has a connection', async () => {
    const connection = [
      '-- proc/800/fd/3 -> socket:[91] --',
      '-- proc/400/net/unix --',
      '0000000000000000: 00000003 00000000 00000000 0001 03 91',
      '0000000000000000: 00000003 00000000 00000000 0001 03 92 /run/twinvol/nbd.sock',
      '-- ss --',
      'u_str ESTAB 0 0 /run/twinvol/nbd.sock 92 * 91',
    ].join('\n');
    expect(await factsOn([], UNIX, { extra: shell(connection) })).toMatchObject([
      { kind: 'open', processes: [{ name: 'bash', pid: 800 }], connections: ['unix:92'] },
    ]);
  });
});
