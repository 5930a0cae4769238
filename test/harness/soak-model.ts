/**
 * The simple model of a soak: an array of bytes for each volume, and the state of each pair as the published matrix of
 * commands and states has it. Nothing of the engine's own code decides here but that table.
 */
import { COMMAND_MATRIX, type PairCommand } from '../../src/core/pair-matrix.ts';
import type { PairState } from '../../src/core/rows.ts';

export class ModelVolume {
  readonly name: string;
  /** Null: nothing is known, because a copy overwrites it or an error left it behind. */
  content: Buffer | null;
  readonly bytes: number;

  constructor(name: string, content: Buffer) {
    this.name = name;
    this.content = content;
    this.bytes = content.length;
  }

  fill(offset: number, bytes: Uint8Array): void {
    this.content?.set(bytes, offset);
  }
}

export class ModelPair {
  readonly primary: ModelVolume;
  readonly secondary: ModelVolume;
  state: PairState = 'simplex';
  fence: 'never' | 'data' = 'never';
  /** The secondary failed at fence level `data`: writes fail until the fence is lowered or the pair is resynced. */
  isFenced = false;

  constructor(primary: ModelVolume, secondary: ModelVolume) {
    this.primary = primary;
    this.secondary = secondary;
  }

  get name(): string {
    return `${this.primary.name} -> ${this.secondary.name}`;
  }
  get ref(): { readonly primary: string; readonly secondary: string } {
    return { primary: this.primary.name, secondary: this.secondary.name };
  }

  /** `ok`, or the code with which the command is refused. */
  outcomeOf(command: PairCommand, siblings: readonly ModelPair[]): string {
    const cell = COMMAND_MATRIX[command][this.state];
    if (!cell.allowed) return cell.code;
    // No restore of this model is ever interrupted.
    if (cell.only === 'restore-interrupted') return cell.unless?.allowed === false ? cell.unless.code : 'ok';
    const areQuiet = siblings.every(({ state }) => state === 'split' || state === 'suspended' || state === 'simplex');
    return command === 'restore' && !areQuiet ? 'PAIR_STATE' : 'ok';
  }
}
