/**
 * Power loss and errors at any moment of the audit record's life. What must hold: a record that was acknowledged as
 * durable is there after every crash, in its order and under its number, and no crash leaves what reads as damage; and
 * so after a crash during the repair of that, and after a medium that failed for a while.
 *
 * Run it: npx vitest run test/fault/audit-crash.test.ts
 */
import { describe, expect, test } from 'vitest';
import type { AuditEntry } from '../../src/core/audit.ts';
import { AuditFile, scanAudit } from '../../src/store/audit-file.ts';
import { crashImages, marksUpTo, moments, randomFrom } from '../support/crash-images.ts';
import { type DiskImage, type FaultPlan, RecordedFiles } from '../support/recorded-files.ts';

const PATH = '/store/audit.log';
const options = { random: randomFrom(3), samples: 6 };

/** Records of several lengths: some share a sector, some span two. */
const entry = (text: string): AuditEntry => ({
  kind: 'host',
  change: 'added',
  host: `${text}${'x'.repeat((text.length * 37 + Number(text) * 211) % 700)}`,
  volume: null,
  access: null,
  text,
});
const textsOf = (image: DiskImage): string[] =>
  scanAudit(image.get(PATH) ?? Buffer.alloc(0)).records.map((record) => (record.kind === 'host' ? (record.text ?? '') : '?'));

/** Appends in groups, marking what is acknowledged as durable. */
const live = async (image: DiskImage, groups: readonly (readonly string[])[], plan: FaultPlan = () => null): Promise<RecordedFiles> => {
  const files = new RecordedFiles(image);
  const audit = await AuditFile.open('/store', { files, nowMs: () => 1, reserveBytes: 1024 });
  files.failBy(plan);
  for (const group of groups) {
    const { durable } = audit.append(group.map(entry));
    await durable.then(
      () => files.mark(group.join(' ')),
      () => undefined,
    );
  }
  files.failBy(() => null);
  await audit.close();
  return files;
};

const GROUPS = [['1'], ['2', '3', '4'], ['5', '6'], ['7']];

/** Texts that were acknowledged are a beginning of what is there; what is there is a beginning of what was appended. */
const expectKept = (image: DiskImage, marks: readonly string[], appended: readonly string[], what: string): void => {
  const acknowledged = marks.flatMap((mark) => mark.split(' ')).length;
  const texts = textsOf(image);
  expect(texts.length, what).toBeGreaterThanOrEqual(acknowledged);
  expect(texts, what).toEqual(appended.slice(0, texts.length));
  const scan = scanAudit(image.get(PATH) ?? Buffer.alloc(0));
  expect(scan.damage, what).toEqual([]);
  expect(
    scan.records.map(({ seq }) => seq),
    what,
  ).toEqual(texts.map((_, index) => index + 1));
};

describe('a crash at any moment', () => {
  test('loses nothing that was acknowledged, and reads as no damage; nor does a crash in the life after it', async () => {
    const appended = GROUPS.flat();
    const files = await live(new Map(), GROUPS);
    const seconds: DiskImage[] = [];
    for (const moment of moments(files.trace)) {
      const marks = marksUpTo(files.trace, moment);
      for (const image of crashImages(files.initial, files.trace, moment, options)) {
        expectKept(image, marks, appended, `after event ${moment}`);
        if (seconds.length < 10 && options.random() < 0.1) seconds.push(image);
      }
    }
    for (const first of seconds) {
      const kept = textsOf(first);
      const again = await live(first, [['91'], ['92', '93']]);
      for (const moment of moments(again.trace)) {
        for (const image of crashImages(again.initial, again.trace, moment, { ...options, samples: 3 })) {
          const marks = [...(kept.length === 0 ? [] : [kept.join(' ')]), ...marksUpTo(again.trace, moment)];
          expectKept(image, marks, [...kept, '91', '92', '93'], `second life, event ${moment}`);
        }
      }
    }
  });

  test.each([
    ['a sync that fails once', 'sync', 'EIO', 1],
    ['syncs that fail for a while', 'sync', 'EIO', 3],
    ['a full disk for a while', 'pwrite', 'ENOSPC', 2],
  ] as const)('%s: what is acknowledged afterwards is kept, with all that came before it', async (_, operation, code, times) => {
    for (let start = 0; start < 9; start += 2) {
      let failed = 0;
      let from = -1;
      const files = await live(new Map(), GROUPS, (what, count) => {
        if (from < 0) from = count;
        if (what !== operation || count < from + start || failed >= times) return null;
        failed += 1;
        return code;
      });
      for (const moment of moments(files.trace).filter((_moment, index, all) => index % 3 === 0 || index === all.length - 1)) {
        const marks = marksUpTo(files.trace, moment);
        for (const image of crashImages(files.initial, files.trace, moment, { ...options, samples: 4 })) {
          // A group that failed is written again with the next one: it may be there, in its place.
          const texts = textsOf(image);
          expect(texts).toEqual(GROUPS.flat().slice(0, texts.length));
          const last = marks.at(-1)?.split(' ').at(-1);
          if (last !== undefined) expect(texts).toContain(last);
          expect(scanAudit(image.get(PATH) ?? Buffer.alloc(0)).damage).toEqual([]);
        }
      }
    }
  });

  test('a medium that lies about its syncs is noticed by this test', async () => {
    const files = new RecordedFiles(new Map(), { isLiar: true });
    const audit = await AuditFile.open('/store', { files, reserveBytes: 1024 });
    await audit.append([entry('1')]).durable;
    files.mark('1');
    let lost = 0;
    for (const image of crashImages(files.initial, files.trace, files.trace.length, { ...options, samples: 40 })) {
      if (textsOf(image).length === 0) lost += 1;
    }
    expect(lost).toBeGreaterThan(0);
  });
});
