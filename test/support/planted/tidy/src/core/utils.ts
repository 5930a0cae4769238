/** planted: name */
export const anything = 1;
