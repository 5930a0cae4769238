/** planted: layer */
import { thing } from './cli/main.ts';

export const used = thing;
