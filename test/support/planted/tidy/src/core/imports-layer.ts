/** planted: layer */
import { thing } from '../wire/frame.ts';

export const used = thing;
