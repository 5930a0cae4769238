import { describe, expect, it } from 'vitest';
import type { FromAgent, ToAgent } from '../../../src/wire/agent-messages.ts';
import { encodeAgentMessage, parseFromAgent, parseToAgent } from '../../../src/wire/agent-messages.ts';
import { LineDecoder } from '../../../src/wire/line-decoder.ts';

const FROM: FromAgent[] = [
  { type: 'hello', version: 1, host: 'a', pid: 3, isPrivileged: false, token: 't' },
  { type: 'hello', version: 1, host: 'a', pid: 3, isPrivileged: true },
  { type: 'failed', id: 'x', text: 'why' },
  { type: 'pong' },
  { type: 'report', findings: [] },
  {
    type: 'answer',
    id: 'x',
    findings: [
      { volume: 1, facts: [{ kind: 'not-mounted' }] },
      {
        volume: 2,
        facts: [
          { kind: 'unknown', what: 'a', why: 'b', connections: ['unix:1'] },
          { kind: 'open', device: 'd', layers: [{ kind: 'loop', name: 'l' }], processes: [{ name: 'p', pid: 0 }], connections: [] },
          { kind: 'mounted', device: 'd', mountPoint: '/', fileSystem: 'ext4', access: 'ro', layers: [], namespace: null, connections: [] },
          { kind: 'mounted', device: 'd', mountPoint: '/', fileSystem: 'ext4', access: 'rw', layers: [], namespace: 'n', connections: [] },
        ],
      },
    ],
  },
];
const TO: ToAgent[] = [
  { type: 'welcome', version: 1, host: 'a', watch: [{ volume: 1, name: 'v', uris: ['nbd://h/v'] }], pingMs: 5 },
  { type: 'refused', code: 'ACCESS_DENIED', text: 'no' },
  { type: 'inquiry', id: 'x', targets: [], deadlineMs: 3000 },
  { type: 'watch', targets: [] },
  { type: 'ping' },
];

describe('agent messages', () => {
  it('come out as they went in', () => {
    for (const message of FROM) expect(parseFromAgent(encodeAgentMessage(message) ?? '')).toEqual(message);
    for (const message of TO) expect(parseToAgent(encodeAgentMessage(message) ?? '')).toEqual(message);
  });

  it('lose fields that nobody knows, and types that nobody knows are skipped', () => {
    expect(parseFromAgent('{"type":"pong","extra":1}')).toEqual({ type: 'pong' });
    expect(parseFromAgent('{"type":"later"}')).toEqual({ type: 'skipped' });
    expect(parseToAgent('{"type":"later"}')).toEqual({ type: 'skipped' });
  });

  it.each([
    'x',
    '[]',
    'null',
    '{}',
    '{"type":5}',
    '{"type":"hello","version":1,"host":"a","pid":-1,"isPrivileged":true}',
    `{"type":"hello","version":1,"host":"${'a'.repeat(300)}","pid":1,"isPrivileged":true}`,
    '{"type":"hello","version":1,"host":"a","pid":1,"isPrivileged":"yes"}',
    '{"type":"answer","id":"x","findings":{}}',
    '{"type":"answer","id":"x","findings":[{"volume":1,"facts":[]}]}',
    '{"type":"answer","id":"x","findings":[{"volume":1,"facts":[{"kind":"free"}]}]}',
    '{"type":"answer","id":"x","findings":[{"volume":1.5,"facts":[{"kind":"not-mounted"}]}]}',
    '{"type":"answer","id":"x","findings":[{"volume":1,"facts":[{"kind":"not-mounted"},{"kind":"not-mounted"}]}]}',
    '{"type":"answer","id":"x","findings":[{"volume":1,"facts":[{"kind":"open","device":"d","layers":[{"kind":"magic","name":"x"}],"processes":[],"connections":[]}]}]}',
    '{"type":"answer","id":"x","findings":[{"volume":1,"facts":[{"kind":"mounted","device":"d","mountPoint":"/","fileSystem":"f","access":"xx","layers":[],"namespace":null,"connections":[]}]}]}',
  ])('are refused when they are malformed: %s', (line) => expect(parseFromAgent(line).type).toBe('malformed'));

  it('are refused with more facts than the limit', () => {
    const facts = Array.from({ length: 257 }, () => ({ kind: 'unknown', what: 'a', why: 'b', connections: [] }));
    expect(parseFromAgent(JSON.stringify({ type: 'report', findings: [{ volume: 1, facts }] })).type).toBe('malformed');
  });
});

describe('lines', () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

  it('are the same however their bytes are split', () => {
    const stream = bytes('one\n\n  \nzwölf 漢字\r\nlast\nrest');
    for (let size = 1; size <= stream.length; size += 1) {
      const decoder = new LineDecoder(64);
      const lines: string[] = [];
      for (let at = 0; at < stream.length; at += size) lines.push(...decoder.push(stream.slice(at, at + size)));
      expect(lines).toEqual(['one', 'zwölf 漢字\r', 'last']);
    }
  });

  it('do not change when the buffer they came in is used again', () => {
    const decoder = new LineDecoder(64);
    const buffer = bytes('abc');
    expect(decoder.push(buffer)).toEqual([]);
    buffer.fill(120);
    expect(decoder.push(bytes('d\n'))).toEqual(['abcd']);
  });

  it('end at one that is too long or no text, and stay ended', () => {
    const long = new LineDecoder(4);
    expect(long.push(bytes('abcd\nabcde\nx\n'))).toEqual(['abcd']);
    expect(long.fault).toBe('line-too-long');
    expect(long.push(bytes('x\n'))).toEqual([]);
    const odd = new LineDecoder(4);
    expect(odd.push(new Uint8Array([0x61, 0x0a, 0xff, 0x0a, 0x62, 0x0a]))).toEqual(['a']);
    expect(odd.fault).toBe('not-utf8');
  });

  it('can be longer from some time on', () => {
    const decoder = new LineDecoder(2);
    decoder.allow(10);
    expect(decoder.push(bytes('longer\n'))).toEqual(['longer']);
  });
});
