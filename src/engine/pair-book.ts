/**
 * The pairs as they really are: the journalled rows, and over them the rows that are true but could not be journalled
 * yet.
 *
 * What happens to a pair without a command (a failed leg, say) is a fact, whether the journal's disk is full or not.
 * Such a row runs ahead of the journal: everybody sees it, and it is written again and again until it is durable. That
 * is safe in every order of crash, because the journal then names a state with more promises (`duplex`), and recovery
 * checks those against the dirty bits. A command never runs ahead: it fails when its row cannot be made durable.
 *
 * Whoever waits for a state is told here of every change.
 */
import { EventEmitter } from 'node:events';
import type { PairRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';

export class PairBook {
  readonly #tables: Tables;
  readonly #ahead = new Map<number, PairRow>();
  readonly #changes = new EventEmitter<{ changed: [id: number] }>();

  constructor(tables: Tables) {
    this.#tables = tables;
    // Any number of operators may wait.
    this.#changes.setMaxListeners(0);
  }

  row(id: number): PairRow | undefined {
    return this.#tables.pair(id) === undefined ? undefined : (this.#ahead.get(id) ?? this.#tables.pair(id));
  }
  rows(): readonly PairRow[] {
    return this.#tables.pairs().map((row) => this.#ahead.get(row.id) ?? row);
  }
  ofPrimary(volume: number): readonly PairRow[] {
    return this.#tables.pairsOfPrimary(volume).map((row) => this.#ahead.get(row.id) ?? row);
  }
  ofSecondary(volume: number): PairRow | undefined {
    const row = this.#tables.pairOfSecondary(volume);
    return row === undefined ? undefined : (this.#ahead.get(row.id) ?? row);
  }

  /** This row is true, and not durable. */
  runAhead(row: PairRow): void {
    this.#ahead.set(row.id, row);
  }
  /** The journal has the pair's present row (or has it no more). */
  settle(id: number): void {
    this.#ahead.delete(id);
  }
  /** Rows that are not durable. */
  unsettled(): readonly PairRow[] {
    return [...this.#ahead.values()];
  }

  /** Wakes everybody who waits for this pair. */
  announce(id: number): void {
    this.#changes.emit('changed', id);
  }
  /** @returns how to stop listening */
  onChange(listener: (id: number) => void): () => void {
    this.#changes.on('changed', listener);
    return () => this.#changes.off('changed', listener);
  }
}
