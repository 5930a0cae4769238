/** planted: package */
import { thing } from 'fs-ext';

export const used = thing;
