/** planted: package */
import { thing } from 'commander';

export const used = thing;
