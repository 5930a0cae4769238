/** planted: typescript(switch-exhaustiveness-check) */
export const wordOf = (state: 'split' | 'duplex'): string => {
  let word = '';
  switch (state) {
    case 'split':
      word = 'S';
      break;
  }
  return word;
};
