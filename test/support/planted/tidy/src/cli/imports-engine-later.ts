/** planted: layer */
export const used = () => import('../engine/engine.ts');
