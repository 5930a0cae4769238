/**
 * Frames of the control socket: JSON-RPC 2.0, one message a line, UTF-8, ended by a newline.
 *
 * Pure: bytes in and messages out. The decoder never holds more than one frame's limit, gives the same messages however
 * the bytes are split, and knows no message that it cannot name: a line is a request, a notification, a reply, or a
 * stated fault. Batches (arrays) are refused: a connection carries any number of requests at once without them.
 *
 * Errors of the device carry the number -32000 and, in `data`, the stable code, the remedy, the facts and the exit
 * status of the fault catalogue. The numbers from -32700 on are those of the JSON-RPC 2.0 specification, section 5.1.
 */
import type { ExitStatus, FaultCode } from '../core/faults.ts';
import { EXIT, FAULTS, TwinvolError } from '../core/faults.ts';
import { MiB } from '../core/units.ts';

/** Name of the control socket in the store's directory. */
export const CONTROL_SOCKET_NAME: string = 'control.sock';

/** The longest line that a server takes. */
export const REQUEST_FRAME_BYTES_MAX: number = 1 * MiB;
/** The longest line that a client takes: a list of 65,535 volumes fits. */
export const REPLY_FRAME_BYTES_MAX: number = 256 * MiB;

export const RPC_ERROR = {
  parse: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
  device: -32000,
} as const;

export type RequestId = string | number;
export type RpcRequest = { readonly kind: 'request'; readonly id: RequestId; readonly method: string; readonly params: unknown };
export type RpcNotification = { readonly kind: 'notification'; readonly method: string; readonly params: unknown };
export type RpcResult = { readonly kind: 'result'; readonly id: RequestId; readonly result: unknown };
export type RpcError = { readonly kind: 'error'; readonly id: RequestId | null; readonly error: RpcErrorBody };
/** A line that is no message. `isFatal`: the stream cannot be trusted any more and has to be closed. */
export type RpcMalformed = {
  readonly kind: 'malformed';
  readonly code: number;
  readonly text: string;
  readonly id: RequestId | null;
  readonly isFatal: boolean;
};
export type RpcMessage = RpcRequest | RpcNotification | RpcResult | RpcError | RpcMalformed;

export type RpcErrorBody = { readonly code: number; readonly message: string; readonly data?: FaultData };
/** What an error tells a program: `code` is one of the fault catalogue. */
export type FaultData = {
  readonly code: FaultCode;
  readonly remedy: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly exit: ExitStatus;
};

const NEWLINE = 0x0a;
/** A buffer up to this size stays for the next line. */
const HELD_BYTES_KEPT = 64 * 1024;
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
const isId = (value: unknown): value is RequestId => typeof value === 'string' || Number.isSafeInteger(value);

const malformed = (code: number, text: string, id: RequestId | null = null, isFatal = false): RpcMalformed => {
  return { kind: 'malformed', code, text, id, isFatal };
};

/** One JSON value to one message; every field is checked here and nowhere else. */
const messageOf = (value: unknown): RpcMessage => {
  if (Array.isArray(value)) return malformed(RPC_ERROR.invalidRequest, 'batches are not supported: send each request on a line of its own');
  if (!isObject(value)) return malformed(RPC_ERROR.invalidRequest, 'a message is a JSON object');
  const id = isId(value['id']) ? value['id'] : null;
  const refuse = (text: string): RpcMalformed => malformed(RPC_ERROR.invalidRequest, text, id);
  if (value['jsonrpc'] !== '2.0') return refuse('"jsonrpc" must be "2.0"');
  if (typeof value['method'] === 'string') {
    const { method, params = {} } = value;
    if (!isObject(params)) return refuse('"params" must be an object: parameters have names');
    if (!('id' in value)) return { kind: 'notification', method: method, params };
    return id === null ? refuse('"id" must be a string or a whole number') : { kind: 'request', id, method: method, params };
  }
  if ('method' in value) return refuse('"method" must be a string');
  if (isObject(value['error'])) {
    const { code, message, data } = value['error'];
    if (typeof code !== 'number' || typeof message !== 'string') return refuse('"error" must have a code and a message');
    return { kind: 'error', id, error: { code, message, ...(isObject(data) ? { data: data as FaultData } : {}) } };
  }
  if ('result' in value && id !== null) return { kind: 'result', id, result: value['result'] };
  return refuse('a message has a "method", a "result" or an "error"');
};

/** Cuts a byte stream into lines and lines into messages. */
export class FrameDecoder {
  readonly #frameBytesMax: number;
  readonly #text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #held = new Uint8Array(0);
  #heldBytes = 0;
  #isBroken = false;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** Bytes of a line that has not ended yet. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** The messages that `chunk` completes, in order. After a fatal one nothing more comes out. The chunk is not kept. */
  push(chunk: Uint8Array): RpcMessage[] {
    const messages: RpcMessage[] = [];
    let start = 0;
    while (!this.#isBroken && start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline === -1 ? chunk.length : newline;
      if (this.#heldBytes + (end - start) > this.#frameBytesMax) {
        this.#isBroken = true;
        this.#release();
        messages.push(malformed(RPC_ERROR.invalidRequest, `a line is longer than ${this.#frameBytesMax} bytes`, null, true));
        break;
      }
      if (newline === -1) {
        this.#hold(chunk.subarray(start));
        break;
      }
      const message = this.#completeLine(chunk.subarray(start, end));
      if (message !== null) messages.push(message);
      start = newline + 1;
    }
    return messages;
  }

  #completeLine(rest: Uint8Array): RpcMessage | null {
    if (this.#heldBytes === 0) return this.#parse(rest);
    this.#hold(rest);
    const message = this.#parse(this.#held.subarray(0, this.#heldBytes));
    this.#release();
    return message;
  }

  /** Copies: a held line then costs at most twice its length, however small the pieces are that it came in. */
  #hold(part: Uint8Array): void {
    const neededBytes = this.#heldBytes + part.length;
    if (neededBytes > this.#held.length) {
      const grown = new Uint8Array(Math.max(neededBytes, Math.min(this.#held.length * 2, this.#frameBytesMax)));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes = neededBytes;
  }

  #release(): void {
    this.#heldBytes = 0;
    if (this.#held.length > HELD_BYTES_KEPT) this.#held = new Uint8Array(0);
  }

  /** An empty line is nothing: it lets a person type into the socket. */
  #parse(line: Uint8Array): RpcMessage | null {
    let value: unknown;
    try {
      const text = this.#text.decode(line);
      if (text.trim() === '') return null;
      value = JSON.parse(text);
    } catch {
      return malformed(RPC_ERROR.parse, 'the line is not JSON in UTF-8');
    }
    return messageOf(value);
  }
}

const line = (message: object): string => `${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`;

export const encodeRequest = (id: RequestId, method: string, params: object): string => line({ id, method, params });
export const encodeNotification = (method: string, params: object): string => line({ method, params });
/** `undefined` has no JSON: a method that gives nothing gives null. */
export const encodeResult = (id: RequestId, result: unknown): string => line({ id, result: result ?? null });
export const encodeError = (id: RequestId | null, error: RpcErrorBody): string => line({ id, error });

/** The body of an error of the device. */
export const errorBodyOf = (error: TwinvolError, code: number = RPC_ERROR.device): RpcErrorBody => {
  return { code, message: error.message, data: { code: error.code, remedy: error.remedy, details: error.details, exit: error.exitStatus } };
};

/** The error that a body stands for, on the caller's side; a code that this version does not know becomes `INTERNAL`, with its text. */
export const errorOfBody = (body: RpcErrorBody): TwinvolError => {
  const data = body.data;
  const code = data !== undefined && Object.hasOwn(FAULTS, data.code) ? data.code : null;
  if (data === undefined || code === null) {
    return new TwinvolError('INTERNAL', `the engine answered: ${body.message}`, { details: { rpcCode: body.code, exit: EXIT.broken } });
  }
  return new TwinvolError(code, body.message, { remedy: data.remedy, details: isObject(data.details) ? data.details : {} });
};
