#!/usr/bin/env node
/** The `twinvol` command: the process around `run`. */
import { processIo } from './io.ts';
import { run } from './run.ts';

process.exitCode = await run(process.argv.slice(2), processIo());
