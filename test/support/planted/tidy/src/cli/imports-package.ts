/** planted: package */
import { thing } from 'zod';

export const used = thing;
