/** planted: layer */
export const value = 1;
