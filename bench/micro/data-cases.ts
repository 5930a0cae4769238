/** Micro-benchmarks of what happens for each request: codec, replies, region map, bitmaps, latency histogram. */
import { LatencyHistogram } from '../../src/bench/latency-histogram.ts';
import { RandomNumbers } from '../../src/bench/random-numbers.ts';
import { anySet, bitmapWords, clearRange, countSet, nextClear, nextSet, setRange } from '../../src/core/dirty-bitmap.ts';
import { RegionMap } from '../../src/core/region-map.ts';
import { GiB, KiB, MiB } from '../../src/core/units.ts';
import type { Connection } from '../../src/data/connection.ts';
import { Outbox } from '../../src/data/outbox.ts';
import { writeRequest } from '../../src/wire/nbd-client-transmission.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import {
  NbdRequest,
  parseRequest,
  REPLY_EXTENDED,
  REPLY_HEADER_BYTES_MAX,
  REPLY_STRUCTURED,
  type ReplyMode,
  requestHeaderBytes,
  type RequestRules,
  validateRequest,
  writeDone,
  writeReadHeader,
} from '../../src/wire/nbd-transmission.ts';
import type { MicroCase } from './micro-case.ts';

const REQUESTS = 1000;
const REGIONS = 1_000_000;

const rulesOf = (mode: ReplyMode): RequestRules => ({
  sizeBytes: 1024 * GiB,
  transmissionFlags: nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH | nbd.NBD_FLAG_SEND_FUA | nbd.NBD_FLAG_SEND_DF,
  mode,
  metaContextCount: 1,
  minimumBytes: 1,
  payloadBytesMax: 32 * MiB,
});

/** Headers of 4 KiB reads, and every third a flush, as they would lie behind each other in a buffer. */
const requestBytes = (mode: ReplyMode): Buffer => {
  const numbers = new RandomNumbers(1);
  const bytes = Buffer.alloc(REQUESTS * requestHeaderBytes(mode));
  let at = 0;
  for (let index = 0; index < REQUESTS; index += 1) {
    const isFlush = index % 3 === 2;
    const type = isFlush ? nbd.NBD_CMD_FLUSH : nbd.NBD_CMD_READ;
    const offset = isFlush ? 0 : numbers.below(2 ** 26) * 4096;
    at = writeRequest(bytes, at, mode, type, 0, index, numbers.next32() | 0, offset, isFlush ? 0 : 4096);
  }
  return bytes;
};

const codecCase = (name: string, mode: ReplyMode): MicroCase => ({
  name,
  version: 1,
  operations: REQUESTS,
  prepare: () => {
    const bytes = requestBytes(mode);
    const replies = Buffer.alloc(REQUESTS * REPLY_HEADER_BYTES_MAX);
    const request = new NbdRequest();
    const rules = rulesOf(mode);
    const stride = requestHeaderBytes(mode);
    return () => {
      let out = 0;
      for (let at = 0; at < bytes.length; at += stride) {
        if (!parseRequest(bytes, at, mode, request) || validateRequest(request, rules) !== 0)
          throw new Error('a sound request was refused');
        out = request.type === nbd.NBD_CMD_READ ? writeReadHeader(replies, out, mode, request) : writeDone(replies, out, mode, request);
      }
    };
  },
});

/** As much of a connection as the outbox looks at, with a socket that takes everything. */
const openConnection = (): Connection => {
  const socket = { isBlocked: false, write: (): void => {} };
  return { socket, stopped: '', stop: (): void => {} } as unknown as Connection;
};

const outboxCase: MicroCase = {
  name: 'reply batching, 64 replies of 4 KiB to a write',
  version: 1,
  operations: 64,
  prepare: () => {
    const outbox = new Outbox();
    const connection = openConnection();
    const request = new NbdRequest();
    request.type = nbd.NBD_CMD_READ;
    request.length = 4096;
    return () => {
      outbox.begin(connection);
      for (let index = 0; index < 64; index += 1) {
        request.cookieLow = index;
        if (!outbox.reserve(connection, REPLY_HEADER_BYTES_MAX + 4096)) throw new Error('the outbox is blocked');
        outbox.at = writeReadHeader(outbox.buffer, outbox.at, REPLY_STRUCTURED, request) + 4096;
      }
      outbox.finish(connection);
    };
  },
};

const mapCase = (runs: number): MicroCase => ({
  name: `region map, random offsets in ${runs} ${runs === 1 ? 'run' : 'runs'}`,
  version: 1,
  operations: REQUESTS,
  prepare: () => {
    const regions = 1000;
    const each = regions / runs;
    const list = Array.from({ length: runs }, (_, index) => ({ pv: 0, start: index * (each + 1), count: each }));
    const map = RegionMap.fromRuns(list, 1 * MiB, regions * MiB);
    const numbers = new RandomNumbers(2);
    const offsets = Float64Array.from({ length: REQUESTS }, () => numbers.below((regions * MiB) / 4096) * 4096);
    return () => {
      let sum = 0;
      for (let index = 0; index < REQUESTS; index += 1) {
        if (!map.locate(offsets[index] as number)) throw new Error('an offset of the volume was not found');
        sum += map.offset;
      }
      if (sum <= 0) throw new Error('no offset was mapped');
    };
  },
});

const sharedBitmap = (): Int32Array => new Int32Array(new SharedArrayBuffer(bitmapWords(REGIONS) * 4));

const scanCase = (name: string, dirty: (words: Int32Array) => void): MicroCase => ({
  name,
  version: 1,
  operations: 1,
  prepare: () => {
    const words = sharedBitmap();
    dirty(words);
    const expected = countSet(words);
    return () => {
      let found = 0;
      for (let first = nextSet(words, 0, REGIONS); first < REGIONS; first = nextSet(words, first, REGIONS)) {
        const end = nextClear(words, first, REGIONS);
        found += end - first;
        first = end;
      }
      if (found !== expected) throw new Error(`${found} dirty regions found of ${expected}`);
    };
  },
});

const scatter = (words: Int32Array): void => {
  const numbers = new RandomNumbers(3);
  for (let index = 0; index < REGIONS / 100; index += 1) {
    const region = numbers.below(REGIONS);
    setRange(words, region, region + 1);
  }
};

const markCase: MicroCase = {
  name: 'dirty bits of 4 KiB writes: set already',
  version: 1,
  operations: REQUESTS,
  prepare: () => {
    const words = sharedBitmap();
    setRange(words, 0, REGIONS);
    const numbers = new RandomNumbers(4);
    const regions = Int32Array.from({ length: REQUESTS }, () => numbers.below(REGIONS));
    return () => {
      for (let index = 0; index < REQUESTS; index += 1) {
        const region = regions[index] as number;
        setRange(words, region, region + 1);
      }
      if (!anySet(words, 0, 32)) throw new Error('bits were lost');
    };
  },
};

const clearCase: MicroCase = {
  name: 'dirty bits of a copy: set and clear 16 regions at a time',
  version: 1,
  operations: REQUESTS,
  prepare: () => {
    const words = sharedBitmap();
    return () => {
      for (let index = 0; index < REQUESTS; index += 1) setRange(words, index * 16, index * 16 + 16);
      for (let index = 0; index < REQUESTS; index += 1) clearRange(words, index * 16, index * 16 + 16);
      if (anySet(words, 0, REQUESTS * 16)) throw new Error('bits were not cleared');
    };
  },
};

const histogramCase: MicroCase = {
  name: 'latency histogram, record',
  version: 1,
  operations: REQUESTS,
  prepare: () => {
    const histogram = new LatencyHistogram();
    const numbers = new RandomNumbers(5);
    const latencies = Float64Array.from({ length: REQUESTS }, () => numbers.below(100 * KiB) / 1000);
    return () => {
      for (let index = 0; index < REQUESTS; index += 1) histogram.record(latencies[index] as number);
    };
  },
};

export const DATA_CASES: readonly MicroCase[] = [
  codecCase('request and reply, structured', REPLY_STRUCTURED),
  codecCase('request and reply, extended headers', REPLY_EXTENDED),
  outboxCase,
  mapCase(1),
  mapCase(1000),
  scanCase('bitmap scan of a million regions, clean', () => {}),
  scanCase('bitmap scan of a million regions, 1 % dirty', scatter),
  markCase,
  clearCase,
  histogramCase,
];
