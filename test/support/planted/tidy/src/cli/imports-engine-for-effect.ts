/** planted: layer */
import '../engine/engine.ts';

export const own = 1;
