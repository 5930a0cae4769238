/** planted: package */
import { thing } from 'piscina';

export const used = thing;
