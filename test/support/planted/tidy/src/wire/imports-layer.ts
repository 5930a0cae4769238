/** planted: layer */
import { thing } from '../platform/native.ts';

export const used = thing;
