/** planted: types-only */
import { thing } from '../engine/api.ts';

export const used = thing;
