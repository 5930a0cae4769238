/** planted: typescript(no-floating-promises) */
const later = async (): Promise<void> => undefined;

export const start = (): void => {
  later();
};
