/** planted: barrel */
export * from './one.ts';

export const own = 1;
