import { one } from './one.ts';

/** planted: header */
export const used = one;
