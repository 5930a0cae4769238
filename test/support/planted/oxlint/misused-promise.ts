/** planted: typescript(no-misused-promises) */
const later = async (): Promise<boolean> => true;

export const start = (): number => {
  if (later()) return 1;
  return 2;
};
