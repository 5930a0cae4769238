/** planted: focused-test */
import { describe } from 'vitest';

describe.skip('one', () => undefined);
