/** Short reads and writes are made by intercepting the calls; the files are real. */
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { preadFully, pwriteFully, syncDirectory, writeFileDurable } from '../../../src/platform/durable-file.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const watch = vi.hoisted(() => ({ bytesMax: Number.POSITIVE_INFINITY, calls: [] as string[] }));

vi.mock('node:fs', async (importOriginal) => {
  const real = await importOriginal<typeof import('node:fs')>();
  return {
    ...real,
    readSync: (fd: number, buffer: Uint8Array, offset: number, length: number, position: number) =>
      real.readSync(fd, buffer, offset, Math.min(length, watch.bytesMax), position),
    writeSync: (fd: number, buffer: Uint8Array, offset: number, length: number, position: number) => {
      watch.calls.push('write');
      return real.writeSync(fd, buffer, offset, Math.min(length, watch.bytesMax), position);
    },
    fsyncSync: (fd: number) => {
      watch.calls.push(real.fstatSync(fd).isDirectory() ? 'sync directory' : 'sync file');
      real.fsyncSync(fd);
    },
    renameSync: (from: string, to: string) => {
      watch.calls.push('rename');
      real.renameSync(from, to);
    },
  };
});

beforeEach(() => {
  watch.bytesMax = Number.POSITIVE_INFINITY;
  watch.calls = [];
});

describe('writing a file durably', () => {
  it('syncs the content before the name, and the name after', async () => {
    await using temporary = await temporaryDirectory();
    writeFileDurable(temporary.path('file'), Buffer.from('new'));
    expect(watch.calls).toEqual(['write', 'sync file', 'rename', 'sync directory']);
    expect(readFileSync(temporary.path('file'), 'utf8')).toBe('new');
    expect(statSync(temporary.path('file')).mode & 0o777).toBe(0o600);
  });

  it('replaces what was there, and what a crash left', async () => {
    await using temporary = await temporaryDirectory();
    writeFileSync(temporary.path('file'), 'old and longer');
    writeFileSync(temporary.path('file.new'), 'torn, from a crash');
    writeFileDurable(temporary.path('file'), Buffer.from('new'));
    expect(readFileSync(temporary.path('file'), 'utf8')).toBe('new');
    expect(readdirSync(temporary.root)).toEqual(['file']);
  });

  it('leaves the old content and no remains when it fails', async () => {
    await using temporary = await temporaryDirectory();
    mkdirSync(temporary.path('file'));
    expect(() => writeFileDurable(temporary.path('file'), Buffer.from('new'))).toThrow(/EISDIR/);
    expect(readdirSync(temporary.root)).toEqual(['file']);
    watch.bytesMax = 0;
    writeFileSync(temporary.path('other'), 'old');
    expect(() => writeFileDurable(temporary.path('other'), Buffer.from('new'))).toThrow(expect.objectContaining({ code: 'EIO' }));
    expect(readFileSync(temporary.path('other'), 'utf8')).toBe('old');
  });

  it('a directory that is missing is an error', async () => {
    await using temporary = await temporaryDirectory();
    expect(() => syncDirectory(temporary.path('none'))).toThrow(/ENOENT/);
    expect(() => writeFileDurable(temporary.path('none', 'file'), Buffer.from('x'))).toThrow(/ENOENT/);
  });
});

describe('reading and writing fully', () => {
  it.each([1, 3, 4096, Number.POSITIVE_INFINITY])('goes on after %d bytes at a time', async (bytesMax) => {
    await using temporary = await temporaryDirectory();
    watch.bytesMax = bytesMax;
    const fd = openSync(temporary.path('file'), 'w+');
    const bytes = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 251));
    pwriteFully(fd, bytes, 100);
    const back = Buffer.alloc(5000);
    expect(preadFully(fd, back, 100)).toBe(5000);
    expect(back.equals(bytes)).toBe(true);
    closeSync(fd);
  });

  it('reads what there is before the end of the file', async () => {
    await using temporary = await temporaryDirectory();
    writeFileSync(temporary.path('file'), 'four');
    const fd = openSync(temporary.path('file'), 'r');
    const buffer = Buffer.alloc(10, 1);
    expect(preadFully(fd, buffer, 2)).toBe(2);
    expect(buffer.toString('latin1')).toBe(`ur${'\x01'.repeat(8)}`);
    expect(preadFully(fd, buffer, 4)).toBe(0);
    closeSync(fd);
  });

  it('works on a view into a larger buffer, and only there', async () => {
    await using temporary = await temporaryDirectory();
    const fd = openSync(temporary.path('file'), 'w+');
    pwriteFully(fd, new Uint8Array(Buffer.from('abcdef')).subarray(2, 4), 0);
    const large = Buffer.alloc(6, '-');
    expect(preadFully(fd, large.subarray(1, 4), 0)).toBe(2);
    expect(large.toString()).toBe('-cd---');
    closeSync(fd);
  });
});
