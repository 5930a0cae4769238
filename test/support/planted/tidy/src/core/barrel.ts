/** planted: barrel */
export { one } from './one.ts';
export type { Two } from './two.ts';
