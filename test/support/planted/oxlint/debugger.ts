/** planted: eslint(no-debugger) */
export const stop = (): void => {
  debugger;
};
