/** planted: package */
import { thing } from 'tinybench';

export const used = thing;
