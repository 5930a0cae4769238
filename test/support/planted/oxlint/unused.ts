/** planted: eslint(no-unused-vars) */
import { join } from 'node:path';

export const value = 1;
