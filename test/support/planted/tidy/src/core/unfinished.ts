/** planted: unfinished */
// TODO: the other half
export const half = 1;
