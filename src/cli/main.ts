#!/usr/bin/env node
/** The `twinvol` command: the process around `run`. Called by a link of the name of an alias (`paircreate`), it is that one. */
import { aliasCalled } from './alias-flags.ts';
import { processIo } from './io.ts';
import { run } from './run.ts';

const [, path = '', ...words] = process.argv;
const alias = aliasCalled(path);
process.exitCode = await run(alias === null ? words : [alias, ...words], processIo());
