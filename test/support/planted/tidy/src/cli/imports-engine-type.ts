/** planted: layer */
import type { Device } from '../engine/engine.ts';

export type Used = Device;
