/** As much of QEMU's machine protocol as starts a mirror: one command at a time over a unix socket, events in between. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const ANSWER_MS_MAX = 120_000;

type Message = { readonly return?: unknown; readonly error?: { readonly desc: string }; readonly event?: string };

export class Qmp implements Disposable {
  readonly #socket: Socket;
  readonly #messages: Message[] = [];
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    let rest = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim() !== '') this.#messages.push(JSON.parse(line) as Message);
      this.#wake();
    });
    socket.on('error', () => {});
  }

  static async open(path: string): Promise<Qmp> {
    const socket = connect(path);
    await once(socket, 'connect');
    const qmp = new Qmp(socket);
    await qmp.execute('qmp_capabilities', {});
    return qmp;
  }

  /** @throws Error with QEMU's own words */
  async execute(command: string, parameters: Readonly<Record<string, unknown>>): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters })}\n`);
    const answer = await this.#next((message) => 'return' in message || 'error' in message, command);
    if (answer.error !== undefined) throw new Error(`${command}: ${answer.error.desc}`);
    return answer.return;
  }

  async event(name: string): Promise<void> {
    await this.#next((message) => message.event === name, name);
  }

  async #next(isIt: (message: Message) => boolean, what: string): Promise<Message> {
    const giveUpMs = performance.now() + ANSWER_MS_MAX;
    while (true) {
      const index = this.#messages.findIndex(isIt);
      const [found] = index < 0 ? [] : this.#messages.splice(index, 1);
      if (found !== undefined) return found;
      if (performance.now() > giveUpMs || this.#socket.destroyed) throw new Error(`no answer to ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
