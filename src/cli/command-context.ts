/**
 * What every command works with: the options that all have, the connection to the engine (made when first needed), and
 * the two ways to answer: one JSON document for programs, or text for people.
 */
import { join } from 'node:path';
import type { CallOptions, ControlClient } from '../control/client.ts';
import type { MethodName, MethodParams, MethodResult } from '../control/method-table.ts';
import { TwinvolError } from '../core/faults.ts';
import { CONTROL_SOCKET_NAME } from '../wire/control-frames.ts';
import type { CliIo } from './io.ts';
import { type Paint, painterFor } from './style.ts';

export type GlobalOptions = { readonly store?: string; readonly json?: boolean };

export class CommandContext {
  readonly io: CliIo;
  /** For text on stdout. */
  readonly paint: Paint;
  /** For text on stderr. */
  readonly paintError: Paint;
  /** The exit status, where a command's success has one of its own. */
  exitStatus = 0;
  readonly #globals: () => GlobalOptions;
  #client: Promise<ControlClient> | null = null;

  constructor(io: CliIo, globals: () => GlobalOptions) {
    this.io = io;
    this.#globals = globals;
    this.paint = painterFor(io.stdout, io.env);
    this.paintError = painterFor(io.stderr, io.env);
  }

  get json(): boolean {
    return this.#globals().json === true;
  }

  /** Whether a person can be asked, and expects to be. */
  get isInteractive(): boolean {
    return this.io.isInteractive && !this.json;
  }

  /** @throws TwinvolError `USAGE` when nothing says which store */
  get storeDirectory(): string {
    const directory = this.#globals().store ?? this.io.env['TWINVOL_STORE'] ?? '';
    if (directory !== '') return directory;
    throw new TwinvolError('USAGE', 'which device? no store is named', { remedy: 'give --store DIR, or set TWINVOL_STORE' });
  }

  /** Who sits here, for the audit record: the user, also behind sudo. */
  get userName(): string {
    const { SUDO_USER: behindSudo } = this.io.env;
    return behindSudo === undefined || behindSudo === '' ? this.io.userName() : `${behindSudo} (as ${this.io.userName()})`;
  }

  client(): Promise<ControlClient> {
    this.#client ??= this.#connect();
    return this.#client;
  }

  async call<Name extends MethodName>(method: Name, params: MethodParams<Name>, options?: CallOptions): Promise<MethodResult<Name>> {
    const client = await this.client();
    return client.call(method, params, options);
  }

  /** The answer of the command: once, on stdout. */
  print(value: unknown, text: () => string): void {
    this.io.stdout.write(`${this.json ? JSON.stringify(value ?? null, null, 2) : text()}\n`);
  }

  /** A remark for people, on stderr. */
  note(text: string): void {
    if (!this.json) this.io.stderr.write(`${text}\n`);
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => null);
    await client?.close();
  }

  async #connect(): Promise<ControlClient> {
    const path = join(this.storeDirectory, CONTROL_SOCKET_NAME);
    const { ControlClient: Client } = await import('../control/client.ts');
    return Client.connect(path);
  }
}
