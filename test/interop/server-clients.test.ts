/**
 * The field's own clients against the server, both kinds of it: what each of them asks for, it gets, and what it writes
 * is what another one reads. These are the programs that storage engineers will point at a volume first.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { needClient, run, type RunOptions, type RunResult } from '../support/clients.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const MiB = 2 ** 20;
const CAPACITY_BYTES = 128 * MiB;
/** Written places of the sparse image: [offset, length] in bytes. */
const EXTENTS = [
  [0, 4096],
  [5 * MiB, 3 * MiB],
  [40 * MiB - 4096, 8192],
  [127 * MiB, MiB],
] as const;

const ok = async (client: string, args: readonly string[], options?: RunOptions): Promise<RunResult> => {
  const result = await run(needClient(client), args, options);
  if (result.status !== 0) throw new Error(`${client} ${args.join(' ')} ended with ${result.status}\n${result.stdout}${result.stderr}`);
  return result;
};
const json = async <T>(client: string, args: readonly string[]): Promise<T> => JSON.parse((await ok(client, args)).stdout) as T;
const allocatedBytes = (path: string): number => fs.statSync(path).blocks * 512;

type MapEntry = { readonly offset: number; readonly length: number; readonly type: number };
type QemuMapEntry = { readonly start: number; readonly length: number; readonly data: boolean; readonly present: boolean };
type ExportInfo = Record<string, unknown> & { readonly 'export-name': string };

describe.each(BOTH_KINDS)('the server, $kind', ({ native }) => {
  let server: NbdServerProcess;
  let temporary: TemporaryDirectory;
  let sparseImage: string;
  const places = (name: string) =>
    [
      ['unix socket', server.uri(name)],
      ['TCP', server.tcpUri(name)],
    ] as const;
  const storeBytes = (): number => [0, 1].reduce((sum, pv) => sum + allocatedBytes(`${server.directory}/pv${pv}.img`), 0);

  beforeAll(async () => {
    temporary = await temporaryDirectory();
    sparseImage = temporary.path('sparse.raw');
    const fd = fs.openSync(sparseImage, 'w');
    fs.ftruncateSync(fd, CAPACITY_BYTES);
    for (const [offset, length] of EXTENTS) fs.writeSync(fd, randomBytes(length), 0, length, offset);
    fs.closeSync(fd);
    server = await startNbdServer({
      native,
      tcp: true,
      volumes: [
        ...['info', 'copied', 'allocated', 'converted', 'io', 'loaded'].map((name) => ({ name, capacityBytes: CAPACITY_BYTES })),
        { name: 'sealed', capacityBytes: 8 * MiB, readOnly: true },
        { name: 'second of info', capacityBytes: CAPACITY_BYTES },
      ],
      pair: { primary: 0, secondary: 7 },
    });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await temporary?.[Symbol.asyncDispose]();
  });

  it('nbdinfo sees size, block sizes and what the export can, over unix socket and TCP, by name and by number', async () => {
    for (const [, uri] of [...places('info'), ...places('1')]) {
      const { exports } = await json<{ exports: ExportInfo[] }>('nbdinfo', ['--json', uri]);
      expect(exports[0]).toMatchObject({
        'export-size': CAPACITY_BYTES,
        description: 'test volume 1',
        is_read_only: false,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * MiB,
        ...Object.fromEntries(
          ['cache', 'df', 'fast_zero', 'flush', 'fua', 'multi_conn', 'trim', 'zero'].map((can) => [`can_${can}`, true]),
        ),
      });
      expect((await ok('nbdinfo', ['--size', uri])).stdout.trim()).toBe(String(CAPACITY_BYTES));
      expect((await ok('nbdinfo', [uri])).stdout).toMatch(/base:allocation/);
    }
  });

  it('nbdinfo --list shows every export with its metadata contexts', async () => {
    for (const where of [`nbd+unix:///?socket=${server.socketPath}`, `nbd://127.0.0.1:${server.tcpPort}`]) {
      const { exports } = await json<{ exports: ExportInfo[] }>('nbdinfo', ['--list', '--json', where]);
      expect(exports.map((found) => found['export-name'])).toEqual([
        'info',
        'copied',
        'allocated',
        'converted',
        'io',
        'loaded',
        'sealed',
        'second of info',
      ]);
      expect(exports[0]?.contexts).toEqual(['base:allocation', 'twinvol:dirty', 'qemu:dirty-bitmap:info']);
      expect(exports[1]?.contexts).toEqual(['base:allocation']);
    }
  });

  it('nbdinfo --can and --is answer truthfully, also for a read-only export', async () => {
    const status = async (flag: string, what: string, name: string): Promise<number | null> =>
      (await run(needClient('nbdinfo'), [flag, what, server.uri(name)])).status;
    for (const can of ['read', 'write', 'flush', 'fua', 'trim', 'zero', 'fast-zero', 'cache', 'df', 'multi-conn'])
      expect([can, await status('--can', can, 'info')]).toEqual([can, 0]);
    for (const can of ['write', 'trim', 'zero', 'fast-zero']) expect([can, await status('--can', can, 'sealed')]).toEqual([can, 2]);
    expect(await status('--is', 'read-only', 'sealed')).toBe(0);
    expect(await status('--is', 'read-only', 'info')).toBe(2);
    expect(await status('--is', 'rotational', 'info')).toBe(2);
    expect(await status('--is', 'tls', 'info')).toBe(2);
  });

  it('nbdinfo gets a clear error for an export that is not there', async () => {
    const { status, stderr } = await run(needClient('nbdinfo'), [server.uri('nowhere')]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/No such file or directory for export: nowhere/);
  });

  it('nbdinfo --map shows holes where nothing was written, and dirty regions under both names', async () => {
    const uri = server.uri('info');
    await server.call('pairsSwitch', [{ id: 1, mode: 'tracking', dirty: 'clear' }]);
    await ok('qemu-io', ['-f', 'raw', '-c', 'write -P 0xab 16M 130k', uri]);
    const written = { offset: 16 * MiB, length: 132 * 1024, type: 0 };
    const map = await json<MapEntry[]>('nbdinfo', ['--map', '--json', uri]);
    expect(map).toMatchObject([{ offset: 0, length: 16 * MiB, type: 3 }, written, { offset: 16 * MiB + 132 * 1024, type: 3 }]);
    for (const context of ['twinvol:dirty', 'qemu:dirty-bitmap:info']) {
      // 64 KiB regions: three of them were touched.
      const dirty = await json<MapEntry[]>('nbdinfo', [`--map=${context}`, '--json', uri]);
      expect(dirty).toMatchObject([
        { offset: 0, type: 0 },
        { offset: 16 * MiB, length: 192 * 1024, type: 1 },
        { offset: 16 * MiB + 192 * 1024, type: 0 },
      ]);
    }
    expect((await ok('nbdinfo', ['--map', '--totals', uri])).stdout).toMatch(/99\.9%.*hole,zero/);
  });

  it('nbdcopy brings an image there and back over several connections, and holes stay holes', async () => {
    const before = storeBytes();
    const back = temporary.path('back.raw');
    await ok('nbdcopy', ['--connections=4', '--requests=64', '--flush', sparseImage, server.uri('copied')]);
    expect(storeBytes() - before).toBeLessThan(6 * MiB);
    await ok('nbdcopy', ['--connections=4', server.tcpUri('copied'), back]);
    await ok('cmp', [sparseImage, back]);
    expect(allocatedBytes(back)).toBeLessThan(6 * MiB);
  });

  it('nbdcopy --allocated takes the space, and nbdcopy --destination-is-zero is right about a new volume', async () => {
    const before = storeBytes();
    const back = temporary.path('back-allocated.raw');
    await ok('nbdcopy', ['--destination-is-zero', sparseImage, server.uri('allocated')]);
    expect(storeBytes() - before).toBeLessThan(6 * MiB);
    await ok('nbdcopy', ['--allocated', sparseImage, server.uri('allocated')]);
    expect(storeBytes() - before).toBeGreaterThan(CAPACITY_BYTES - 2 * MiB);
    await ok('nbdcopy', [server.uri('allocated'), back]);
    await ok('cmp', [sparseImage, back]);
  });

  it('nbdcopy from one volume to another', async () => {
    await ok('nbdcopy', [sparseImage, server.uri('copied')]);
    await ok('nbdcopy', ['--connections=2', server.uri('copied'), server.tcpUri('loaded')]);
    await ok('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', server.uri('loaded'), sparseImage]);
  });

  it('qemu-img converts raw and qcow2 both ways, and compare agrees', async () => {
    const uri = server.uri('converted');
    const [qcow2, raw] = [temporary.path('image.qcow2'), temporary.path('image.raw')];
    await ok('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', sparseImage, qcow2]);
    await ok('qemu-img', ['convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, uri]);
    expect((await ok('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', sparseImage, uri])).stdout).toMatch(/Images are identical/);
    await ok('qemu-img', ['convert', '-W', '-m', '8', '-f', 'raw', '-O', 'qcow2', uri, qcow2]);
    await ok('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', server.tcpUri('converted'), raw]);
    expect((await ok('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', uri, qcow2])).stdout).toMatch(/Images are identical/);
    await ok('cmp', [sparseImage, raw]);
    expect(allocatedBytes(raw)).toBeLessThan(6 * MiB);
  });

  it('a qcow2 image on the volume itself: qemu-img creates, checks and uses it there', async () => {
    const uri = server.uri('converted');
    await ok('qemu-img', ['create', '-f', 'qcow2', uri, '1G']);
    await ok('qemu-io', [
      '-f',
      'qcow2',
      '-c',
      'write -P 7 700M 2M',
      '-c',
      'write -z 100M 64M',
      '-c',
      'read -P 7 700M 2M',
      '-c',
      'flush',
      uri,
    ]);
    expect((await ok('qemu-img', ['check', '-f', 'qcow2', uri])).stdout).toMatch(/No errors were found/);
  });

  it('qemu-img info and map agree with what is in the image', async () => {
    await ok('nbdcopy', [sparseImage, server.uri('copied')]);
    expect(await json('qemu-img', ['info', '--output=json', server.uri('copied')])).toMatchObject({
      'virtual-size': CAPACITY_BYTES,
      format: 'raw',
    });
    const map = await json<QemuMapEntry[]>('qemu-img', ['map', '--output=json', '-f', 'raw', server.uri('copied')]);
    const local = await json<QemuMapEntry[]>('qemu-img', ['map', '--output=json', '-f', 'raw', sparseImage]);
    const dataOf = (entries: QemuMapEntry[]): number[][] => entries.filter(({ data }) => data).map(({ start, length }) => [start, length]);
    // Neighbouring pieces of data may be told apart by one and joined by the other.
    expect(dataOf(map).reduce((sum, [, length = 0]) => sum + length, 0)).toBe(
      dataOf(local).reduce((sum, [, length = 0]) => sum + length, 0),
    );
    expect(dataOf(map)[0]).toEqual([0, 4096]);
  });

  it('qemu reads the dirty bitmap under the name that its backup tools use', async () => {
    await server.call('pairsSwitch', [{ id: 1, mode: 'tracking', dirty: 'clear' }]);
    await ok('qemu-io', ['-f', 'raw', '-c', 'write 32M 64k', server.uri('info')]);
    const source = `driver=nbd,server.type=unix,server.path=${server.socketPath},export=info,x-dirty-bitmap=qemu:dirty-bitmap:info`;
    const map = await json<QemuMapEntry[]>('qemu-img', ['map', '--output=json', '--image-opts', source]);
    // qemu shows what is dirty as not present.
    expect(map.filter(({ present, data }) => !data && !present)).toMatchObject([{ start: 32 * MiB, length: 65_536 }]);
  });

  it('qemu-io: patterns, FUA, zeroes with and without holes, discard, requests of 32 MiB', async () => {
    const uri = server.uri('io');
    const { stdout } = await ok('qemu-io', [
      ...['-f', 'raw', '-t', 'none', '-n'],
      ...['-c', 'write -P 0x11 0 32M', '-c', 'write -f -P 0x22 33554431 70001', '-c', 'aio_write -P 0x33 64M 32M', '-c', 'aio_flush'],
      ...['-c', 'write -z 8M 1M', '-c', 'write -z -u 10M 2M', '-c', 'write -z -f 14M 4k', '-c', 'discard 16M 3M', '-c', 'flush'],
      ...[
        '-c',
        'read -P 0x11 0 8M',
        '-c',
        'read -P 0 8M 1M',
        '-c',
        'read -P 0x11 9M 1M',
        '-c',
        'read -P 0 10M 2M',
        '-c',
        'read -P 0 14M 4k',
      ],
      ...['-c', 'read -P 0 16M 3M', '-c', 'read -P 0x11 19M 13631487', '-c', 'read -P 0x22 33554431 70001', '-c', 'read -P 0x33 64M 32M'],
      ...['-c', 'read -P 0 33624432 1000'],
      uri,
    ]);
    expect(stdout).not.toMatch(/failed/i);
    expect(stdout.match(/^read /gm)).toHaveLength(10);
  });

  it('qemu-io cannot write to a read-only export, and can read it', async () => {
    const refused = await run(needClient('qemu-io'), ['-f', 'raw', '-c', 'write 0 4k', server.uri('sealed')]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr + refused.stdout).toMatch(/read.only|permitted|denied/i);
    await ok('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0 0 8M', server.uri('sealed')]);
  });

  it.each(['randwrite', 'write', 'randrw'])('fio with four jobs verifies what it wrote: %s', async (pattern) => {
    const { stdout } = await ok('fio', [
      ...['--name=job', '--ioengine=nbd', `--uri=${server.uri('loaded')}`, `--rw=${pattern}`, '--bsrange=512-192k', '--bs_unaligned=0'],
      ...['--size=32M', '--io_size=16M', '--offset_increment=32M', '--numjobs=4', '--iodepth=32', '--fsync=32', '--group_reporting'],
      ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--randseed=7', '--output-format=json'],
    ]);
    const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
      jobs: Array<{ error: number; write: { total_ios: number }; read: { total_ios: number } }>;
    };
    expect(report.jobs[0]).toMatchObject({ error: 0 });
    expect(report.jobs[0]?.read.total_ios).toBeGreaterThan(0);
  });

  it('fio trims, and nothing is left allocated there', async () => {
    const uri = server.uri('loaded');
    await ok('fio', ['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--rw=trim', '--bs=1M', '--size=128M', '--iodepth=4']);
    const map = await json<MapEntry[]>('nbdinfo', ['--map', '--json', uri]);
    expect(map).toMatchObject([{ offset: 0, length: CAPACITY_BYTES, type: 3 }]);
  });

  it("Debian's nbd-client lists the exports over unix socket and TCP", async () => {
    const wanted = ['info', 'copied', 'allocated', 'converted', 'io', 'loaded', 'sealed', 'second of info'];
    for (const where of [
      ['-unix', server.socketPath],
      ['127.0.0.1', String(server.tcpPort)],
    ]) {
      const { stdout } = await ok('nbd-client', ['-l', ...where]);
      expect(
        stdout
          .split('\n')
          .filter((line) => line.includes(': test volume'))
          .map((line) => line.split(':')[0]),
      ).toEqual(wanted);
    }
  });
});
