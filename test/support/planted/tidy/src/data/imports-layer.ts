/** planted: layer */
import { thing } from '../control/server.ts';

export const used = thing;
