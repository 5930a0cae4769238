/** planted: layer */
import { thing } from '../src/platform/native.ts';

export const used = thing;
