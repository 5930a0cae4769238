/** Names of volumes, hosts and groups: one rule for all, so that a name fits an URI, a file name and a command line. */
import { TwinvolError } from './faults.ts';
import { VOLUME_NAME_CHARS_MAX } from './units.ts';

const NAME = /^[A-Za-z0-9._-]+$/;
/** A text of digits is a volume's number; `.` and `..` vanish from URIs; a leading `-` would be an option. */
const NOT_A_NAME = /^(?:\d+|\.|\.\.|-.*)$/;

export const isDigits = (text: string): boolean => /^\d+$/.test(text);

export const isValidName = (name: string): boolean => name.length <= VOLUME_NAME_CHARS_MAX && NAME.test(name) && !NOT_A_NAME.test(name);

/** @throws TwinvolError `NAME_INVALID` */
export const requireName = (kind: 'volume' | 'host' | 'group', name: string): void => {
  if (isValidName(name)) return;
  throw new TwinvolError('NAME_INVALID', `"${name}" cannot be the name of a ${kind}`, {
    remedy: `use 1 to ${VOLUME_NAME_CHARS_MAX} letters, digits, ".", "_" or "-"; not only digits, not "." or "..", and no "-" at the start`,
    details: { kind, name },
  });
};
