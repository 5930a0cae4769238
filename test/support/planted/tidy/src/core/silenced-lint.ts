/** planted: silenced */
// oxlint-disable-next-line no-debugger
export const half = 1;
