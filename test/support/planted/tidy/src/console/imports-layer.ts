/** planted: layer */
import { thing } from '../store/layout.ts';

export const used = thing;
