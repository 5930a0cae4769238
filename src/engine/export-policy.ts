/**
 * Who gets what over NBD: the engine's answer to every NBD option that names an export.
 *
 * - Every volume is an export by its name and by its number (a name is never only digits, so they cannot collide).
 * - A secondary of a pair that is not split refuses hosts, or serves them read-only where the device's setting says so:
 *   its content is being overwritten, or must stay equal to the primary's. Split, it is an ordinary read-write volume.
 * - A volume of the pool that is in no pair is exported read-write like any other, so that people can look at it and
 *   prepare it; the inquiry before a pair is formed finds who still uses it.
 * - With `exportsFollowGrants` a volume that the peer's host was not granted does not exist for it: not in the list,
 *   and its error is that of a name that nobody has. A host proves itself by a certificate that was bound to it; whoever
 *   is let into the unix socket (mode 0600) without one is the device's own user, and has every volume.
 */
import type { PairRow, VolumeRow } from '../core/rows.ts';
import type { Caller } from '../core/host-access.ts';
import { callerAccess, isCertificateOf } from '../core/host-access.ts';
import { formatSize } from '../core/units.ts';
import type { Tables } from '../core/tables.ts';
import type { ExportGrant, ExportPolicy, ExportRefusal, PeerIdentity } from '../data/plane-api.ts';
import type { PairBook } from './pair-book.ts';

export class DeviceExportPolicy implements ExportPolicy {
  readonly #tables: Tables;
  readonly #pairs: PairBook;
  #isStopping = false;

  constructor(tables: Tables, pairs: PairBook) {
    this.#tables = tables;
    this.#pairs = pairs;
  }

  /** From now on nobody gets anything. */
  stop(): void {
    this.#isStopping = true;
  }

  find(exportName: string, peer: PeerIdentity): ExportGrant | ExportRefusal {
    if (this.#isStopping) return { refused: 'shutdown', message: 'the device is stopping' };
    const volume = this.#tables.findVolume(exportName);
    const caller = this.#callerOf(peer);
    const access = volume === undefined ? null : callerAccess(caller, volume.number, this.#tables.settings);
    if (volume === undefined || access === null) return { refused: 'unknown', message: `there is no export "${exportName}"` };
    const pair = this.#pairs.ofSecondary(volume.number);
    const isServing = pair === undefined || pair.state === 'split';
    if (!isServing && this.#tables.settings.secondaryAccess === 'refuse') return { refused: 'policy', message: refusalText(volume, pair) };
    return {
      volume: volume.number,
      readOnly: !isServing || access === 'ro',
      description: describe(volume),
      host: caller.host?.name ?? null,
      dirty: this.#dirtyOf(volume.number, pair),
    };
  }

  list(peer: PeerIdentity): ReadonlyArray<{ readonly name: string; readonly description: string }> {
    if (this.#isStopping) return [];
    const caller = this.#callerOf(peer);
    return this.#tables
      .volumes()
      .filter((volume) => callerAccess(caller, volume.number, this.#tables.settings) !== null)
      .map((volume) => ({ name: volume.name, description: describe(volume) }));
  }

  #callerOf({ transport, certificateName, certificateSha256 }: PeerIdentity): Caller {
    const named = certificateName === null ? undefined : this.#tables.host(certificateName);
    const isProved = named !== undefined && certificateSha256 !== null && isCertificateOf(named, certificateSha256);
    return { host: isProved ? named : null, transport };
  }

  /**
   * The dirty bitmap that an export offers: a secondary's own, or that of the primary's pair. Of several pairs it is the
   * one that was split or suspended first; where none tracks, there is nothing that differs.
   */
  #dirtyOf(volume: number, asSecondary: PairRow | undefined): ExportGrant['dirty'] {
    if (asSecondary !== undefined) return { pair: asSecondary.id, side: 'secondary' };
    const pairs = this.#pairs.ofPrimary(volume);
    const tracking = pairs
      .filter((pair) => pair.state === 'split' || pair.state === 'suspended')
      .sort((a, b) => a.stateSinceMs - b.stateSinceMs);
    const pair = tracking[0] ?? pairs[0];
    return pair === undefined ? null : { pair: pair.id, side: 'primary' };
  }
}

const describe = (volume: VolumeRow): string => `volume ${volume.number}, ${formatSize(volume.capacityBytes)}`;

const refusalText = (volume: VolumeRow, pair: PairRow): string =>
  `${volume.name} is the secondary of a pair that is ${pair.state}: hosts get it after a split (or read-only, by the setting secondaryAccess)`;
