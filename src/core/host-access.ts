/**
 * Which host may see which volume, and how: the one place where grants are read (specification 2 and 6).
 *
 * With the setting `exportsFollowGrants` off the device asks nobody who they are: every caller reaches every volume
 * read-write, and so every known host *can* reach a volume and is asked about it. With the setting on a volume that a
 * host was not granted does not exist for it, and a caller that is no known host has no volume at all.
 */
import type { DeviceSettings, HostAccess, HostRow } from './rows.ts';

type GrantSetting = Pick<DeviceSettings, 'exportsFollowGrants'>;

const grantOf = (host: HostRow, volumeNumber: number): HostAccess | null => {
  const key = String(volumeNumber);
  return Object.hasOwn(host.grants, key) ? (host.grants[key] ?? null) : null;
};

/** How `host` (null: a caller that proved no name) may use the volume; null: it does not exist for that caller. */
export const accessOf = (host: HostRow | null, volumeNumber: number, settings: GrantSetting): HostAccess | null => {
  if (!settings.exportsFollowGrants) return 'rw';
  return host === null ? null : grantOf(host, volumeNumber);
};

/** Who is at the other end of an NBD connection, as far as it has proved it. */
export type Caller = {
  /** The host that its certificate proves; null for nobody known. */
  readonly host: HostRow | null;
  readonly transport: 'unix' | 'tcp' | 'tls';
};

/**
 * How a caller may use the volume. The NBD socket in the file system has mode 0600: who gets through is the device's own
 * user or root, who may read the store's files anyway, and so has every volume.
 */
export const callerAccess = ({ host, transport }: Caller, volumeNumber: number, settings: GrantSetting): HostAccess | null => {
  return host === null && transport === 'unix' ? 'rw' : accessOf(host, volumeNumber, settings);
};

/** Whether a certificate is one of those that prove the host. */
export const isCertificateOf = (host: HostRow, sha256: string): boolean => host.certificates?.includes(sha256) ?? false;

/** The volumes of `volumeNumbers` that exist for the caller, in their order, with the access it has. */
export const visibleVolumes = (
  host: HostRow | null,
  volumeNumbers: readonly number[],
  settings: GrantSetting,
): ReadonlyArray<{ readonly volume: number; readonly access: HostAccess }> => {
  return volumeNumbers.flatMap((volume) => {
    const access = accessOf(host, volume, settings);
    return access === null ? [] : [{ volume, access }];
  });
};

/** The hosts that can reach the volume, by name, in the order of their names: the ones that an inquiry asks. */
export const hostsReaching = (hosts: readonly HostRow[], volumeNumber: number, settings: GrantSetting): readonly string[] => {
  return hosts
    .filter((host) => accessOf(host, volumeNumber, settings) !== null)
    .map((host) => host.name)
    .sort();
};

/** The row with the grant given or changed. */
export const withGrant = (host: HostRow, volumeNumber: number, access: HostAccess): HostRow => {
  return { ...host, grants: { ...host.grants, [String(volumeNumber)]: access } };
};

/** The row without the grant; the same row if there was none. */
export const withoutGrant = (host: HostRow, volumeNumber: number): HostRow => {
  if (grantOf(host, volumeNumber) === null) return host;
  return { ...host, grants: Object.fromEntries(Object.entries(host.grants).filter(([key]) => key !== String(volumeNumber))) };
};
