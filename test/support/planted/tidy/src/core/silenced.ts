/** planted: silenced */
// @ts-ignore
export const half: string = 1;
