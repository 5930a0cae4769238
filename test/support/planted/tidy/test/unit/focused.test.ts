/** planted: focused-test */
import { it } from 'vitest';

it.only('one', () => undefined);
