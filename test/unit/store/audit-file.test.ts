/** The audit record's file: numbers, reading, what is reported of a file that somebody has changed, and a full disk. */
import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { AuditEntry } from '../../../src/core/audit.ts';
import { AUDIT_RESERVE_BYTES, AuditFile, scanAudit } from '../../../src/store/audit-file.ts';
import { checkStore } from '../../../src/store/check.ts';
import { initStore } from '../../../src/store/init.ts';
import { decodeAuditLine, encodeAuditLine } from '../../../src/wire/audit-line.ts';
import { RecordedFiles } from '../../support/recorded-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const entry = (host: string): AuditEntry => ({ kind: 'host', change: 'added', host, volume: null, access: null, text: null });
const hostsOf = async (audit: AuditFile, since = 0, limit = 100): Promise<Array<string | null>> =>
  (await audit.read(since, limit)).map((record) => (record.kind === 'host' ? record.host : '?'));

/** The file without the space in reserve. */
const linesOf = (path: string): string[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '');

describe('a line of the audit record', () => {
  it('is read as it was written, and not when a character of it was changed', () => {
    const line = encodeAuditLine(7, 1234, 5, entry('web1')).trimEnd();
    const decoded = decodeAuditLine(line);
    expect(decoded).toMatchObject({ seq: 7, durableSeq: 5 });
    expect(decoded?.record()).toEqual({ seq: 7, atMs: 1234, ...entry('web1') });
    for (let at = 0; at < line.length; at += 1) {
      const changed = `${line.slice(0, at)}${line[at] === '0' ? '1' : '0'}${line.slice(at + 1)}`;
      expect(decodeAuditLine(changed), changed).toBeNull();
    }
    expect(decodeAuditLine('')).toBeNull();
    expect(decodeAuditLine('00000000 {}')).toBeNull();
  });
});

describe('the audit record', () => {
  it('numbers its records from 1, gives them back from any number on, and goes on after a restart', async () => {
    await using temporary = await temporaryDirectory();
    const audit = await AuditFile.open(temporary.root);
    const first = audit.append([entry('a'), entry('b')]);
    const second = audit.append([entry('c')]);
    expect([...first.seqs, ...second.seqs]).toEqual([1, 2, 3]);
    await Promise.all([first.durable, second.durable]);
    expect(await hostsOf(audit)).toEqual(['a', 'b', 'c']);
    expect(await hostsOf(audit, 1, 1)).toEqual(['b']);
    await audit.close();
    await expect(audit.append([entry('late')]).durable).rejects.toMatchObject({ code: 'ENGINE_STOPPING' });
    const again = await AuditFile.open(temporary.root);
    expect(again.append([entry('d')]).seqs).toEqual([4]);
    expect(await hostsOf(again, 2)).toEqual(['c', 'd']);
    await again.close();
    expect(statSync(temporary.path('audit.log')).mode & 0o777).toBe(0o600);
    expect(linesOf(temporary.path('audit.log'))).toHaveLength(4);
  });

  it('cuts off what a crash left of a write, and says so', async () => {
    await using temporary = await temporaryDirectory();
    const audit = await AuditFile.open(temporary.root);
    await audit.append([entry('a')]).durable;
    await audit.close();
    const path = temporary.path('audit.log');
    const [line = ''] = linesOf(path);
    writeFileSync(path, `${line}\n${encodeAuditLine(2, 1, 1, entry('torn')).slice(0, 40)}\0\0\0`);
    const notices: string[] = [];
    const again = await AuditFile.open(temporary.root, { notice: (text) => notices.push(text) });
    expect(notices.join('\n')).toMatch(/bytes behind record 1 are the end of writes that were cut off/);
    await again.append([entry('b')]).durable;
    expect(await hostsOf(again)).toEqual(['a', 'b']);
    await again.close();
  });

  it('[audit-damaged] keeps and reports damage within, and a record that was taken out; store check finds both', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    await initStore(store, { regionBytes: 65_536, pvBytes: 1024 * 1024 });
    const audit = await AuditFile.open(store);
    for (const host of ['a', 'b', 'c', 'd', 'e', 'f']) await audit.append([entry(host)]).durable;
    await audit.close();
    const path = `${store}/audit.log`;
    expect(await checkStore(store)).toMatchObject({ ok: true, findings: [] });
    const lines = linesOf(path);
    lines[1] = (lines[1] ?? '').replace('"b"', '"B"');
    lines.splice(3, 1);
    writeFileSync(path, `${lines.join('\n')}\n`);
    const { damage, records } = scanAudit(readFileSync(path));
    expect(damage.map(({ text }) => text)).toEqual([
      expect.stringMatching(/^the line at byte \d+ is damaged$/),
      'record 5 follows on record 3',
    ]);
    expect(records.map(({ seq }) => seq)).toEqual([1, 3, 5, 6]);
    const report = await checkStore(store);
    expect(report.ok).toBe(false);
    expect(report.findings.map(({ severity, file }) => [severity, file])).toEqual([
      ['damage', path],
      ['damage', path],
    ]);
    appendFileSync(path, 'half a li');
    expect((await checkStore(store)).findings.map(({ severity }) => severity)).toEqual(['damage', 'damage', 'repair']);
    // It is history: the engine goes on with it.
    const again = await AuditFile.open(store);
    expect(again.append([entry('g')]).seqs).toEqual([7]);
    expect(await hostsOf(again)).toEqual(['a', 'c', 'e', 'f', 'g']);
    await again.close();
  });

  it('has space in reserve, so that a full disk does not stop what has to be recorded', async () => {
    const files = new RecordedFiles();
    let isFull = false;
    let size = 0;
    const audit = await AuditFile.open('/store', { files });
    size = (await files.readFile('/store/audit.log'))?.length ?? 0;
    expect(size).toBe(AUDIT_RESERVE_BYTES);
    files.failBy((operation) => (isFull && operation === 'pwrite' && audit.lastSeq > 300 ? 'ENOSPC' : null));
    isFull = true;
    for (let count = 0; count < 300; count += 1) await audit.append([entry(`host${count}`)]).durable;
    expect((await files.readFile('/store/audit.log'))?.length).toBeGreaterThanOrEqual(size);
    // Nothing is left: refused, kept, and written when there is space again.
    await expect(audit.append([entry('refused')]).durable).rejects.toMatchObject({ code: 'STORE_FULL' });
    isFull = false;
    await audit.append([entry('later')]).durable;
    expect((await hostsOf(audit, 299)).slice(-3)).toEqual(['host299', 'refused', 'later']);
  });

  it('is opened on a disk without any space, and made with the first record', async () => {
    const files = new RecordedFiles();
    files.failBy(() => 'ENOSPC');
    const audit = await AuditFile.open('/store', { files });
    await expect(audit.append([entry('a')]).durable).rejects.toMatchObject({ code: 'STORE_FULL' });
    files.failBy(() => null);
    await audit.append([entry('b')]).durable;
    expect(await hostsOf(audit)).toEqual(['a', 'b']);
  });
});
