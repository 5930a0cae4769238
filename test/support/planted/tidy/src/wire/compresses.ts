/** planted: node-module */
import { crc32, deflateSync } from 'node:zlib';

export const used = [crc32, deflateSync];
