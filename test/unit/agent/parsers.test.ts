import { describe, expect, it } from 'vitest';
import { parseCommandLine } from '../../../src/agent/command-line.ts';
import { mountOf, parseMountInfo } from '../../../src/agent/mountinfo.ts';
import { endpointText, parseNbdUri, parseQemuNbdName } from '../../../src/agent/nbd-endpoint.ts';
import { parseNbdtab } from '../../../src/agent/nbdtab.ts';
import { decodeOctal } from '../../../src/agent/octal.ts';
import { parseStat } from '../../../src/agent/processes.ts';
import { qemuNbdUses, qemuOptions } from '../../../src/agent/qemu-options.ts';
import { parseTcpTable, parseUnixPairs, parseUnixTable } from '../../../src/agent/sockets.ts';
import { parseSwaps } from '../../../src/agent/swaps.ts';

describe('octal escapes of the kernel', () => {
  it.each([
    ['/srv/my\\040data', '/srv/my data'],
    ['a\\011b\\012c\\134d\\043e', 'a\tb\nc\\d#e'],
    ['\\303\\244', 'ä'],
    ['ü\\040ü', 'ü ü'],
    ['no escape \\09 \\8', 'no escape \\09 \\8'],
    ['\\134040', '\\040'],
  ])('%j is %j', (text, decoded) => expect(decodeOctal(text)).toBe(decoded));
});

describe('mountinfo', () => {
  const line = '36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root\\040a rw,errors=continue';

  it('reads a line with any number of optional fields', () => {
    const { entries } = parseMountInfo(`${line}\n1 0 0:1 / / ro - tmpfs tmpfs rw\n`);
    expect(entries[0]).toEqual({
      id: 36,
      device: '98:0',
      root: '/mnt1',
      mountPoint: '/mnt 2',
      isReadOnly: false,
      fileSystem: 'ext3',
      source: '/dev/root a',
      superOptions: ['rw', 'errors=continue'],
    });
    expect(entries[1]?.isReadOnly).toBe(true);
  });

  it('counts the lines that it cannot read', () => {
    const { entries, unreadableLines } = parseMountInfo(`${line}\n36 35 98:0 /a /b rw ext3 /dev/x rw\nnonsense\n`);
    expect(entries).toHaveLength(1);
    expect(unreadableLines).toBe(2);
  });

  it('finds the mount on which a path lies', () => {
    const { entries } = parseMountInfo(
      '1 0 0:1 / / rw - a a rw\n2 1 0:2 / /srv rw - a a rw\n3 2 0:3 / /srv/file rw - a a rw\n4 2 0:4 / /srv rw - a a rw\n',
    );
    expect(mountOf('/srv/x', entries)?.device).toBe('0:4');
    expect(mountOf('/srv/file', entries)?.device).toBe('0:3');
    expect(mountOf('/srvx', entries)?.device).toBe('0:1');
    expect(mountOf('relative', entries)).toBeNull();
  });
});

describe('swaps', () => {
  it('reads devices, files and escapes', () => {
    const text = 'Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n/swap\\040file\\040(deleted) file 10 0 -3\nodd\n';
    expect(parseSwaps(text)).toEqual({
      entries: [
        { path: '/dev/dm-0', isFile: false },
        { path: '/swap file', isFile: true },
      ],
      unreadableLines: 1,
    });
    expect(parseSwaps('').entries).toEqual([]);
  });
});

describe('socket tables', () => {
  it('reads IPv4, IPv6 and IPv4 inside IPv6', () => {
    const row = (local: string, remote: string, state: string): string => `  0: ${local} ${remote} ${state} 0:0 00:0 0 0 0 77 1 0 20\n`;
    const text = [
      '  sl  local_address rem_address\n',
      row('0100007F:1F90', '0200007F:2A39', '01'),
      row('00000000000000000000000001000000:0016', '00000000000000000000000000000000:0000', '0A'),
      row('0000000000000000FFFF00000100000A:0050', 'B80D01200000000000000000FE0F0000:2A39', '08'),
      row('0100007F:0001', '0100007F:0002', '06'),
    ].join('');
    const sockets = parseTcpTable(text);
    expect(sockets.map(({ local, remote }) => `${local.address}|${local.port} ${remote.address}|${remote.port}`)).toEqual([
      '127.0.0.1|8080 127.0.0.2|10809',
      '::1|22 ::|0',
      '10.0.0.1|80 2001:db8::ffe|10809',
      '127.0.0.1|1 127.0.0.1|2',
    ]);
    expect(sockets.map(({ isConnected, isListening }) => [isConnected, isListening])).toEqual([
      [true, false],
      [false, true],
      [true, false],
      [false, false],
    ]);
  });

  it('reads unix sockets, with blanks in paths', () => {
    const text = [
      'Num       RefCount Protocol Flags    Type St Inode Path',
      '00000000c428a364: 00000002 00000000 00010000 0001 01 15417 /tmp/a socket',
      '0000000003efad7e: 00000003 00000000 00000000 0001 03    99',
      '0000000003efad7f: 00000003 00000000 00000000 0001 03 15419 @abstract',
    ].join('\n');
    expect(parseUnixTable(text)).toEqual([
      { inode: 15417, path: '/tmp/a socket', isListening: true, isConnected: false },
      { inode: 99, path: '', isListening: false, isConnected: true },
      { inode: 15419, path: '@abstract', isListening: false, isConnected: true },
    ]);
  });

  it('reads the pairs that ss lists, in both directions', () => {
    const pairs = parseUnixPairs(
      'u_str ESTAB 0      0      /tmp/n.sock 15419 * 15418 users:(("x",pid=1))\nu_str ESTAB 0 0 /tmp/n.sock 7 * 8 \nu_str LISTEN 0 0 /x 5 * 0\n',
    );
    expect([...pairs]).toEqual([
      [7, 8],
      [8, 7],
    ]);
  });
});

describe('NBD endpoints', () => {
  it.each([
    ['nbd://h/x', 'nbd://h:10809/x'],
    ['nbds://user@[2001:db8::1]:99/a%20b', 'nbd://[2001:db8::1]:99/a b'],
    ['nbd+unix:///vol?socket=/tmp/a%2Fb', 'nbd+unix:///vol?socket=/tmp/a/b'],
    ['nbds+unix:///?tls-certificates=/x&socket=s', 'nbd+unix:///?socket=s'],
    ['nbd+vsock://3:1/e', 'nbd+vsock://3:1/e'],
    ['nbd:///x', 'nbd://localhost:10809/x'],
    ['nbd://h//abs', 'nbd://h:10809//abs'],
  ])('%s', (uri, text) => {
    const endpoint = parseNbdUri(uri);
    expect(endpoint === null ? null : endpointText(endpoint)).toBe(text);
  });

  it.each(['http://x', 'nbd+unix:///vol', 'nbd:unix:/x'])('%s is none', (uri) => expect(parseNbdUri(uri)).toBeNull());

  it("reads qemu's older names", () => {
    expect(parseQemuNbdName('nbd:unix:/a:b:exportname=e:f')).toEqual({ server: { transport: 'unix', path: '/a:b' }, exportName: 'e:f' });
    expect(parseQemuNbdName('nbd:[::1]:10809')).toEqual({ server: { transport: 'tcp', host: '::1', port: 10809 }, exportName: '' });
    expect(parseQemuNbdName('nbd://h/x')).toBeNull();
  });

  it('reads nbdtab', () => {
    const table = parseNbdtab('# comment\nnbd0 h e port=11,persist\n/dev/nbd1 /run/s x # end\nshort\n');
    expect([...table].map(([name, endpoint]) => `${name} ${endpointText(endpoint)}`)).toEqual([
      'nbd0 nbd://h:11/e',
      'nbd1 nbd+unix:///x?socket=/run/s',
    ]);
  });
});

describe("qemu's options", () => {
  it('splits at commas but not at doubled ones', () => {
    expect([...qemuOptions('nbd,path=/a,,b,x', 'driver')]).toEqual([
      ['driver', 'nbd'],
      ['path', '/a,b'],
    ]);
    expect([...qemuOptions('{"server":{"path":"/x"}}', 'driver')]).toEqual([['server.path', '/x']]);
    expect([...qemuOptions('{broken', 'driver')]).toEqual([]);
  });

  it('finds nodes with a prefix, and the mount points that stand on a node', () => {
    const argv = [
      '--blockdev',
      'driver=qcow2,node-name=q,file.driver=nbd,file.host=h,file.port=1,file.export=e',
      '--export=fuse,node-name=q,mountpoint=/m,id=x',
    ];
    expect(qemuNbdUses(argv)).toEqual([
      { endpoint: { server: { transport: 'tcp', host: 'h', port: 1 }, exportName: 'e' }, mountPoints: ['/m'] },
    ]);
  });

  it('ends where nodes stand on each other in a ring', () => {
    const argv = [
      '--blockdev=raw,node-name=a,file=b',
      '--blockdev=raw,node-name=b,file=a',
      '--blockdev=nbd,node-name=n,path=/s',
      '--export=fuse,node-name=a,mountpoint=/m',
    ];
    expect(qemuNbdUses(argv)[0]?.mountPoints).toEqual([]);
  });
});

describe('command lines', () => {
  const uses = (line: string): string[] => {
    const { uses: found } = parseCommandLine(line.split(' '), 'x');
    return found.map(({ endpoint, mountPoints }) => [endpointText(endpoint), ...mountPoints].join(' at '));
  };

  it.each([
    ['nbdfuse dir nbd://h/e', ['nbd://h:10809/e at dir']],
    ['/usr/bin/nbdfuse -o allow_other -C 4 -r dir/file nbd+unix:///e?socket=s', ['nbd+unix:///e?socket=s at dir/file']],
    ['nbdfuse dir --unix /s', ['nbd+unix:///?socket=/s at dir']],
    ['nbdfuse -P /run/pid dir --tcp h 99', ['nbd://h:99/ at dir']],
    ['nbdublk -r /dev/ublkb0 nbd://h/e', ['nbd://h:10809/e']],
    ['nbd-client -N e h 99 /dev/nbd0', ['nbd://h:99/e']],
    ['nbd-client -unix /s -name e -b 512 /dev/nbd0', ['nbd+unix:///e?socket=/s']],
    ['nbd-client h /dev/nbd0 -persist bs=512', ['nbd://h:10809/']],
    ['nbd-client -d /dev/nbd0', []],
    ['qemu-nbd -c /dev/nbd0 nbd:unix:/s:exportname=e', ['nbd+unix:///e?socket=/s']],
    ['qemu-system-x86_64 -drive file=nbd://h/e,format=raw,if=virtio', ['nbd://h:10809/e']],
    ['qemu-img convert nbd://h/a nbd://h/b', ['nbd://h:10809/a', 'nbd://h:10809/b']],
    ['nbdkit nbd socket=/s export=e', ['nbd+unix:///e?socket=/s']],
    ['nbdkit nbd uri=nbd://h/e', ['nbd://h:10809/e']],
    ['nbdkit -U x -e e file disk', []],
    ['fio --ioengine=nbd --uri=nbd+unix:///e?socket=/s', ['nbd+unix:///e?socket=/s']],
    ['python3 tool.py --disk nbd://h/e', ['nbd://h:10809/e']],
  ])('%s', (line, expected) => expect(uses(line)).toEqual(expected));

  it("keeps nbdfuse's mount point where a command is its server, and takes nothing from that command", () => {
    const line = parseCommandLine('nbdfuse dir [ qemu-nbd -r nbd://h/e ]'.split(' '), 'x');
    expect(line.uses).toEqual([]);
    expect(line.otherMountPoints).toEqual(['dir']);
  });

  it('tells programs that connect from programs that only mention', () => {
    expect(parseCommandLine(['/usr/bin/qemu-system-aarch64'], 'x').isNbdProgram).toBe(true);
    expect(parseCommandLine(['vim', 'nbd://h/e'], 'x').isNbdProgram).toBe(false);
    expect(parseCommandLine([], 'nbdfuse').program).toBe('nbdfuse');
  });
});

describe('/proc/PID/stat', () => {
  it('reads names with blanks and brackets', () => {
    expect(parseStat('12 (a) (b c) S 1 12 12 0 -1 2129984 0')).toEqual({ name: 'a) (b c', state: 'S', parentPid: 1, flags: 2129984 });
    expect(parseStat('')).toBeNull();
  });
});
