/**
 * The main thread's end of a worker: a port, questions that are answered by number, and a death that is noticed.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { TwinvolError } from '../core/faults.ts';

type Answer = { readonly type: 'answer'; readonly id: number; readonly value: unknown; readonly error?: string };
type Waiting = { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void };

export class WorkerLink<To extends { readonly type: string }, From extends { readonly type: string }> {
  readonly slot: number;
  /** The worker's end; goes with the task. */
  readonly remotePort: MessagePort;
  /** Volumes and pairs that the worker was told of. */
  readonly toldVolumes = new Set<number>();
  readonly toldPairs = new Set<number>();
  readonly #port: MessagePort;
  readonly #onMessage: (message: From | Answer) => void;
  readonly #waiting = new Map<number, Waiting>();
  #question = 0;
  #isDead = false;

  constructor(slot: number, onMessage: (message: Exclude<From, Answer>) => void) {
    const { port1, port2 } = new MessageChannel();
    this.slot = slot;
    this.#port = port1;
    this.remotePort = port2;
    this.#onMessage = (message) => {
      if (message.type === 'answer') this.#answered(message as Answer);
      else onMessage(message as Exclude<From, Answer>);
    };
    port1.on('message', this.#onMessage);
  }

  /** @param transfer memory that changes hands */
  send(message: To, transfer: readonly ArrayBuffer[] = []): void {
    if (!this.#isDead) this.#port.postMessage(message, transfer);
  }

  /** Sends a message with a question number; resolves with the answer. A worker that dies answers undefined. */
  ask<T>(make: (id: number) => To): Promise<T> {
    if (this.#isDead) return Promise.resolve(undefined as T);
    this.#question += 1;
    const id = this.#question;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.send(make(id));
    });
  }

  #answered(message: Answer): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(new TwinvolError('STORE_IO', `listening failed: ${message.error}`, { details: { code: message.error } }));
  }

  /** The worker has ended. What it had said before still counts, such as a leg that failed. */
  close(): void {
    if (this.#isDead) return;
    for (let got = receiveMessageOnPort(this.#port); got !== undefined; got = receiveMessageOnPort(this.#port)) {
      this.#onMessage(got.message as From | Answer);
    }
    this.#isDead = true;
    this.#port.close();
    for (const { resolve } of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
  }
}
