/**
 * A declaration: what a device should be like, as an operator writes it down (specification 5, provisioning), and the
 * differences to what it is like. Types only; the schema is in `control/methods/apply.ts`, the comparison in
 * `declaration-plan.ts`.
 *
 * What a declaration does not mention is left alone: nothing is ever deleted, released or made smaller because of it.
 */
import type { DeviceSettings, FenceLevel, VolumeAttribute } from './rows.ts';

/** Bytes, or a text such as `10G`. */
export type DeclaredSize = number | string;

export type DeclaredVolume = {
  readonly name: string;
  /** Of a volume that is there already it may be left out. */
  readonly size?: DeclaredSize;
  /** Left out: as it is; `normal` for a new volume. */
  readonly attribute?: VolumeAttribute;
  /** Left out: as it is; false for a new volume. */
  readonly protected?: boolean;
};

/** At least so many volumes of the pool with that size, in use or not; protected ones do not count. */
export type DeclaredPool = {
  readonly size: DeclaredSize;
  readonly count: number;
  /** New ones are called `NAME-1`, `NAME-2`, ...; default `pool`. */
  readonly name?: string;
};

export type DeclaredPair = {
  readonly primary: string;
  /** Left out: any pair of the primary will do that no other entry means; there is none: the device chooses. */
  readonly secondary?: string;
  /** For a pair that has to be formed; left out: the device's setting. */
  readonly condition?: 'same' | 'any';
  readonly fit?: 'off' | 'regions';
  readonly dirtyRegionSize?: DeclaredSize;
  /** Left out: as it is; the default for a new pair. */
  readonly pace?: number;
  readonly fence?: FenceLevel;
};

/** Exactly these pairs: others leave the group. A primary alone means its only pair. */
export type DeclaredGroup = {
  readonly name: string;
  readonly pairs: ReadonlyArray<string | { readonly primary: string; readonly secondary?: string }>;
};

export type Declaration = {
  readonly settings?: Partial<DeviceSettings>;
  readonly volumes?: readonly DeclaredVolume[];
  readonly pool?: readonly DeclaredPool[];
  readonly pairs?: readonly DeclaredPair[];
  readonly groups?: readonly DeclaredGroup[];
};

/** Where in the declaration: a JSON pointer such as `/volumes/3`. */
export type DeclarationPointer = `/${string}`;

/** One difference, as what has to be done about it. Volumes are named, because some are made on the way. */
export type DeclaredStep =
  | { readonly do: 'settings'; readonly changes: Partial<DeviceSettings> }
  | {
      readonly do: 'volume-create';
      readonly name: string;
      readonly sizeBytes: number;
      readonly attribute: VolumeAttribute;
      readonly isProtected: boolean;
    }
  | { readonly do: 'volume-grow'; readonly volume: string; readonly sizeBytes: number }
  | { readonly do: 'restore-size'; readonly volume: string }
  | { readonly do: 'volume-set'; readonly volume: string; readonly attribute?: VolumeAttribute; readonly isProtected?: boolean }
  | {
      readonly do: 'pair-create';
      readonly primary: string;
      readonly secondary: string;
      readonly fit: 'off' | 'regions';
      readonly pace?: number;
      readonly fence?: FenceLevel;
      readonly dirtyRegionBytes?: number;
    }
  | { readonly do: 'pair-set'; readonly primary: string; readonly secondary: string; readonly pace?: number; readonly fence?: FenceLevel }
  | { readonly do: 'group-create'; readonly name: string }
  | { readonly do: 'group-remove' | 'group-add'; readonly name: string; readonly primary: string; readonly secondary: string };

export type DeclaredChange = {
  readonly at: DeclarationPointer;
  readonly kind: 'create' | 'change' | 'remove';
  /** For people: `volume db: 10 GiB, normal`. */
  readonly text: string;
  readonly step: DeclaredStep;
  /** Regions that change their owner, and bytes that are to be copied. */
  readonly regions: number;
  readonly bytes: number;
  /** Number of a volume that is there already and whose content is overwritten or given up. */
  readonly overwrites: number | null;
};

/** A requirement that cannot be met. */
export type Unmet = {
  readonly at: DeclarationPointer;
  /** What was required: `pair db -> (the device chooses)`. */
  readonly requirement: string;
  /** A code of the fault catalogue. */
  readonly code: string;
  readonly reason: string;
  readonly remedy: string;
};

export type DeclarationPlan = {
  readonly changes: readonly DeclaredChange[];
  readonly unmet: readonly Unmet[];
  /** Requirements that are met already. */
  readonly met: number;
};
