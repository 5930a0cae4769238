/** planted: typescript(no-explicit-any) */
export const take = (value: any): string => String(value);
