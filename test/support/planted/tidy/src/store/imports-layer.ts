/** planted: layer */
import { thing } from '../engine/engine.ts';

export const used = thing;
