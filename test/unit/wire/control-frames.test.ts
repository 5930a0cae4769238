/** Control frames: what is taken, what is refused and how, and that splitting the bytes changes nothing. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TwinvolError } from '../../../src/core/faults.ts';
import type { RpcMessage } from '../../../src/wire/control-frames.ts';
import {
  encodeError,
  encodeNotification,
  encodeRequest,
  encodeResult,
  errorBodyOf,
  errorOfBody,
  FrameDecoder,
  RPC_ERROR,
} from '../../../src/wire/control-frames.ts';

const LIMIT = 4096;
const bytesOf = (text: string): Buffer => Buffer.from(text);
const decode = (text: string | Uint8Array): RpcMessage[] => new FrameDecoder(LIMIT).push(typeof text === 'string' ? bytesOf(text) : text);

describe('control frames', () => {
  it('reads back every kind of message that it writes', () => {
    const error = new TwinvolError('PAIR_STATE', 'split is not for a pair in split', { details: { state: 'split' } });
    const text =
      encodeRequest(1, 'pair.split', { primary: 'a' }) +
      encodeNotification('event', { seq: 4 }) +
      encodeResult('x', undefined) +
      encodeError(null, errorBodyOf(error));
    expect(decode(text)).toEqual([
      { kind: 'request', id: 1, method: 'pair.split', params: { primary: 'a' } },
      { kind: 'notification', method: 'event', params: { seq: 4 } },
      { kind: 'result', id: 'x', result: null },
      {
        kind: 'error',
        id: null,
        error: { code: RPC_ERROR.device, message: error.message, data: expect.objectContaining({ code: 'PAIR_STATE', exit: 10 }) },
      },
    ]);
    const back = errorOfBody(errorBodyOf(error));
    expect(back).toMatchObject({ code: 'PAIR_STATE', message: error.message, remedy: error.remedy, details: { state: 'split' } });
  });

  it('turns a code of a later version into INTERNAL and keeps its text', () => {
    const data = { code: 'FROM_THE_FUTURE', remedy: '', details: {}, exit: 10 } as never;
    expect(errorOfBody({ code: -32000, message: 'no flux', data })).toMatchObject({
      code: 'INTERNAL',
      message: 'the engine answered: no flux',
    });
    expect(errorOfBody({ code: -32601, message: 'no such method' })).toMatchObject({ code: 'INTERNAL' });
  });

  const refused: ReadonlyArray<readonly [string, number, string]> = [
    ['{"jsonrpc":"2.0",', RPC_ERROR.parse, 'not JSON'],
    ['[]', RPC_ERROR.invalidRequest, 'batches'],
    ['[{"jsonrpc":"2.0","id":1,"method":"a"}]', RPC_ERROR.invalidRequest, 'batches'],
    ['7', RPC_ERROR.invalidRequest, 'JSON object'],
    ['null', RPC_ERROR.invalidRequest, 'JSON object'],
    ['{"id":1,"method":"a"}', RPC_ERROR.invalidRequest, '"jsonrpc"'],
    ['{"jsonrpc":"2.0","id":1,"method":7}', RPC_ERROR.invalidRequest, '"method"'],
    ['{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}', RPC_ERROR.invalidRequest, '"params"'],
    ['{"jsonrpc":"2.0","id":1.5,"method":"a"}', RPC_ERROR.invalidRequest, '"id"'],
    ['{"jsonrpc":"2.0","id":null,"method":"a"}', RPC_ERROR.invalidRequest, '"id"'],
    ['{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}', RPC_ERROR.invalidRequest, '"error"'],
    ['{"jsonrpc":"2.0","id":1}', RPC_ERROR.invalidRequest, '"method"'],
  ];
  it.each(refused)('refuses %s and goes on', (line, code, part) => {
    const [first, second] = decode(`${line}\n${encodeRequest(2, 'b', {})}`);
    expect(first).toMatchObject({ kind: 'malformed', code, isFatal: false, text: expect.stringContaining(part) });
    expect(second).toMatchObject({ kind: 'request', id: 2 });
  });

  it('refuses bytes that are not UTF-8, and skips empty lines', () => {
    expect(decode(Buffer.from([0x22, 0xff, 0x22, 0x0a]))).toMatchObject([{ kind: 'malformed', code: RPC_ERROR.parse }]);
    expect(decode('\n \r\n\n')).toEqual([]);
  });

  it('gives up on a line over the limit, whole or in pieces, and says nothing after it', () => {
    const longest = `"${'x'.repeat(LIMIT - 2)}"`;
    expect(decode(`${longest}\n`)).toMatchObject([{ kind: 'malformed', isFatal: false }]);
    expect(decode(`${longest}x`)).toMatchObject([{ kind: 'malformed', isFatal: true }]);
    const decoder = new FrameDecoder(LIMIT);
    for (let sent = 0; sent < LIMIT; sent += 1) expect(decoder.push(bytesOf('x'))).toEqual([]);
    expect(decoder.heldBytes).toBe(LIMIT);
    expect(decoder.push(bytesOf('x'))).toMatchObject([{ kind: 'malformed', isFatal: true }]);
    expect(decoder.heldBytes).toBe(0);
    expect(decoder.push(bytesOf(`\n${encodeRequest(1, 'a', {})}`))).toEqual([]);
  });

  const anyLine = fc.oneof(
    fc.json(),
    fc.string({ unit: 'binary' }),
    fc
      .record({ jsonrpc: fc.constant('2.0'), id: fc.jsonValue(), method: fc.jsonValue(), params: fc.jsonValue() })
      .map((value) => JSON.stringify(value)),
    fc.record({ jsonrpc: fc.constant('2.0'), id: fc.integer(), error: fc.jsonValue() }).map((value) => JSON.stringify(value)),
  );
  const anyBytes = fc.oneof(
    fc.array(anyLine, { maxLength: 8 }).map((lines) => bytesOf(`${lines.join('\n')}\n`)),
    fc.uint8Array({ maxLength: 300 }),
  );

  it('gives the same messages however the bytes are split, and never throws', () => {
    fc.assert(
      fc.property(anyBytes, fc.array(fc.nat({ max: 400 })), (bytes, cuts) => {
        const whole = new FrameDecoder(200).push(bytes);
        const pieces = new FrameDecoder(200);
        const places = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length].sort((a, b) => a - b);
        const seen = places.slice(1).flatMap((end, index) => pieces.push(bytes.subarray(places[index], end)));
        expect(seen).toEqual(whole);
      }),
      { numRuns: 500 },
    );
  });
});
