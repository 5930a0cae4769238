/**
 * A pair as a harness sees it: the state that follows from the commands that were answered, and the command that is
 * under way, whose effect is unknown until the engine was asked again.
 *
 * `copying` stands for duplex-pending or duplex: which of the two it is depends on time, and no decision of a harness
 * may depend on time.
 */
import type { PairView } from '../../src/core/views.ts';
import type { EngineProcess } from './engine-process.ts';
import type { VolumeModel } from './volume-model.ts';
import type { WriteHistory } from './write-history.ts';

export type ModelState = 'simplex' | 'copying' | 'duplex' | 'split' | 'suspended';

type Becoming = { readonly history: WriteHistory; readonly done: () => void };

type UnderWay =
  | { readonly command: 'create' | 'resync' | 'suspend' }
  | { readonly command: 'split'; readonly image: Becoming }
  | { readonly command: 'restore'; readonly image: Becoming }
  | { readonly command: 'release'; readonly image: Becoming | null };

/** States of the engine that agree with a state of the model, when no command is under way. */
const AGREEING: Readonly<Record<ModelState, readonly string[]>> = {
  simplex: ['simplex'],
  copying: ['duplex-pending', 'duplex'],
  duplex: ['duplex', 'duplex-pending'],
  split: ['split'],
  suspended: ['suspended'],
};

export class PairModel {
  readonly primary: VolumeModel;
  readonly secondary: VolumeModel;
  state: ModelState = 'simplex';
  /** A restore may still run; the other pairs of the primary have to wait for it. */
  isRestoring = false;
  #underWay: UnderWay | null = null;

  constructor(primary: VolumeModel, secondary: VolumeModel) {
    this.primary = primary;
    this.secondary = secondary;
  }

  get name(): string {
    return `${this.primary.name} -> ${this.secondary.name}`;
  }

  get ref(): { readonly primary: string; readonly secondary: string } {
    return { primary: this.primary.name, secondary: this.secondary.name };
  }

  /** It is there, or may be. */
  get exists(): boolean {
    return this.state !== 'simplex' || this.#underWay !== null;
  }

  get commandUnderWay(): string | null {
    return this.#underWay?.command ?? null;
  }

  // A command is about to be sent

  begins(command: 'create' | 'split' | 'resync' | 'restore' | 'release' | 'suspend'): void {
    const { primary, secondary, state } = this;
    if (command === 'split') {
      this.#underWay = { command, image: historyOf(primary).image() };
    } else if (command === 'restore') {
      this.#underWay = { command, image: historyOf(secondary).over(historyOf(primary)) };
      primary.isUncertain = true;
    } else if (command === 'release') {
      this.#underWay = { command, image: state === 'duplex' ? historyOf(primary).image() : null };
    } else {
      this.#underWay = { command };
    }
  }

  /** It was answered: done. */
  isDone(): void {
    const underWay = this.#underWay;
    this.#underWay = null;
    if (underWay !== null) this.#takesEffect(underWay);
  }

  /** It was answered: refused, and nothing has changed. */
  isRefused(): void {
    const underWay = this.#underWay;
    this.#underWay = null;
    if (underWay !== null && 'image' in underWay) underWay.image?.done();
    this.primary.isUncertain = false;
  }

  #takesEffect(underWay: UnderWay): void {
    const { primary, secondary } = this;
    switch (underWay.command) {
      case 'create':
      case 'resync':
        secondary.history = null;
        this.state = 'copying';
        return;
      case 'suspend':
        this.state = 'suspended';
        return;
      case 'split':
        underWay.image.done();
        secondary.history = underWay.image.history;
        this.state = 'split';
        return;
      case 'restore':
        underWay.image.done();
        primary.becomes(underWay.image.history);
        primary.isUncertain = false;
        secondary.history = null;
        this.state = 'copying';
        this.isRestoring = true;
        return;
      case 'release':
        underWay.image?.done();
        if (underWay.image !== null) secondary.history = underWay.image.history;
        this.state = 'simplex';
        this.isRestoring = false;
    }
  }

  // The engine was started again

  /** Takes over what the engine says, if it agrees with what was answered and what was under way. @returns what is wrong */
  meets(view: PairView | undefined): readonly string[] {
    const found = view?.state ?? 'simplex';
    const underWay = this.#underWay;
    this.#underWay = null;
    const before = this.state;
    if (underWay === null) return this.#keeps(found, before);
    const isEffective = effectOf(underWay.command, before, found);
    if (isEffective === null) return [`pair ${this.name} is ${found} after a ${underWay.command} of a pair that was ${before}`];
    if (isEffective) {
      this.#takesEffect(underWay);
      return [];
    }
    if ('image' in underWay) underWay.image?.done();
    return this.#keeps(found, before);
  }

  #keeps(found: string, before: ModelState): readonly string[] {
    if (!AGREEING[before].includes(found)) return [`pair ${this.name} is ${found}, and was ${before}`];
    // It has to be waited for: after a crash a duplex pair may have to copy.
    if (before === 'duplex') this.state = 'copying';
    return [];
  }

  /** Duplex. @throws TwinvolError `TIMEOUT` and others */
  async untilDuplex(engine: EngineProcess, timeoutMs: number): Promise<void> {
    await engine.call('pair.wait', { ...this.ref, state: 'duplex', timeoutMs });
    this.state = 'duplex';
    this.isRestoring = false;
  }
}

/** Whether the command that was cut off took effect; null: neither is possible. */
const effectOf = (command: UnderWay['command'], before: ModelState, found: string): boolean | null => {
  const isBefore = AGREEING[before].includes(found);
  switch (command) {
    case 'create':
      return found === 'simplex' ? false : AGREEING.copying.includes(found) ? true : null;
    case 'split':
      return found === 'split' ? true : isBefore ? false : null;
    case 'resync':
    case 'restore':
      return isBefore ? false : AGREEING.copying.includes(found) ? true : null;
    case 'release':
      return found === 'simplex' ? true : isBefore ? false : null;
    case 'suspend':
      return found === 'suspended' ? true : isBefore ? false : null;
  }
};

const historyOf = (volume: VolumeModel): WriteHistory => {
  if (volume.history === null) throw new Error(`nothing is known of ${volume.name}`);
  return volume.history;
};
