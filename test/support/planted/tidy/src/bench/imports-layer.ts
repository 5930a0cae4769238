/** planted: layer */
import { thing } from '../data/lane.ts';

export const used = thing;
