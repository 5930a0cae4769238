/** planted: layer */
export { thing } from '../store/layout.ts';

export const own = 1;
