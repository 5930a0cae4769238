/** planted: layer */
import { thing } from '../../bench/thing.ts';

export const used = thing;
