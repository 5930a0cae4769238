/**
 * The reference pages, generated: src/control/REFERENCE.md from the method table, src/core/FAULTS.md from the fault
 * catalogue. A test fails when a page is not what the tables say; `npx vitest run test/unit/control -u` writes them.
 */
import { readFileSync } from 'node:fs';
import { EXIT, FAULTS, NBD_ERRNO } from '../../../src/core/faults.ts';
import { CONTROL_LIMITS_DEFAULT } from '../../../src/control/control-limits.ts';
import { methodViews } from '../../../src/control/method-table.ts';
import { REQUEST_FRAME_BYTES_MAX, RPC_ERROR } from '../../../src/wire/control-frames.ts';
import { formatSize } from '../../../src/core/units.ts';

type Schema = {
  readonly type?: string;
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
};

const typeText = (schema: Schema): string => {
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(' or ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeText).join(' or ');
  if (schema.type === 'array') return `list of ${typeText(schema.items ?? {})}`;
  if (schema.type === 'object') return `{ ${Object.keys(schema.properties ?? {}).join(', ')} }`;
  const { minimum, maximum } = schema;
  const isBounded = minimum !== undefined && maximum !== undefined && maximum < 2 ** 31 - 1;
  const names: Readonly<Record<string, string>> = {
    string: 'text',
    integer: 'whole number',
    number: 'number',
    boolean: 'true or false',
    null: 'null',
  };
  return `${names[schema.type ?? ''] ?? schema.type}${isBounded ? `, ${minimum} to ${maximum}` : ''}`;
};

const paramRows = (schema: Schema, prefix = ''): string[] => {
  return Object.entries(schema.properties ?? {}).flatMap(([name, param]) => {
    const need = schema.required?.includes(name) === true ? 'yes' : '';
    const row = `| \`${prefix}${name}\` | ${typeText(param)} | ${need} | ${param.description ?? ''} |`;
    return [row, ...(param.type === 'object' ? paramRows(param, `${prefix}${name}.`) : [])];
  });
};

/** The exported types of a source file, with their comments, as they stand there. */
const shapesOf = (path: string, names: readonly string[] | 'all'): string[] => {
  const source = readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');
  const blocks = source.matchAll(/^(?:\/\*\*(?:[^*]|\*(?!\/))*\*\/\n)?export type (\w+) = (?:\{[\s\S]*?\n\};|[^{\n]*;)$/gm);
  return [...blocks].filter(([, name]) => names === 'all' || names.includes(name ?? '')).map(([text]) => text);
};

const WRITTEN_BY = '<!-- Generated from the source by test/unit/control/reference-page.ts; do not edit. -->';

export const controlReference = (): string => {
  const limits = CONTROL_LIMITS_DEFAULT;
  const lines = [
    '# The control socket',
    '',
    WRITTEN_BY,
    '',
    'A unix socket, `control.sock`, in the store directory, mode 0600. JSON-RPC 2.0, one message a line, UTF-8, each line ended by a',
    'newline. Any number of requests may be sent without waiting; replies come as they are ready and carry the id of their request.',
    'Parameters are objects; a key that the method does not know is refused. Batches are refused. Notifications from the caller are ignored.',
    '',
    '```',
    '{"jsonrpc":"2.0","id":1,"method":"pair.status","params":{"primary":"db"}}',
    '```',
    '',
    `Limits: ${limits.connections} connections; for each connection ${limits.requestsInFlight} requests in flight, ${limits.streams} event streams and ` +
      `${formatSize(REQUEST_FRAME_BYTES_MAX)} a line; a line that has begun must end`,
    `within ${limits.lineMs / 1000} s; a caller that takes no output for ${limits.stallMs / 1000} s is dropped. When the caller ends its side, waits, verifies and streams are`,
    'given up, and the replies of everything else are still sent.',
    '',
    '## Errors',
    '',
    '`error.data` is `{ code, remedy, details, exit }`: a code of the [fault catalogue](../core/FAULTS.md), what to do about it, facts for',
    'programs, and the exit status that the command line gives for it. `error.code` is one of:',
    '',
    '| number | meaning |',
    '| --- | --- |',
    `| ${RPC_ERROR.device} | the device refused or failed: see \`data.code\` |`,
    `| ${RPC_ERROR.parse} | the line is not JSON; the connection goes on (id is null) |`,
    `| ${RPC_ERROR.invalidRequest} | the message is no request |`,
    `| ${RPC_ERROR.methodNotFound} | there is no such method |`,
    `| ${RPC_ERROR.invalidParams} | a parameter is not as the schema says |`,
    `| ${RPC_ERROR.internal} | a fault of twinvol itself |`,
    '',
    '## Notifications from the engine',
    '',
    '| method | params | meaning |',
    '| --- | --- | --- |',
    '| `event` | `{ subscription, event: EventView }` | an event of a stream that `events.subscribe` started |',
    '| `event.end` | `{ subscription, error }` | the stream has ended; `error` is null, or a body such as `EVENTS_GONE` |',
    '| `dropped` | `{ reason, error }` | the last line before the engine closes the connection for a reason of its own |',
    '',
    'Resume after the largest `seq` seen: `exists` records carry 0, except the last of them, which carries the number of the last event',
    'that the records include. Numbers of a later run of the engine are larger than those of an earlier one.',
    '',
    '## Consent',
    '',
    'Methods that destroy data may be refused with `MOUNTED` or `NO_ANSWER`. Then `details.findings` says what was found (each with a `key`',
    'and a `text` for the operator), `details.destroys` what would be lost, and `details.token` stands for exactly these facts. Repeating the',
    'call with `consent: { token }` says that they were read; when the facts have changed in between the answer is `CONSENT_VOID` with the new',
    'ones. A program without an operator names the `key` of each finding in `consent.overrides` and gives a `reason`.',
    '',
    '## Methods',
    '',
  ];
  for (const method of methodViews()) {
    const marks = [
      method.changes ? 'changes something' : 'only reads',
      ...(method.destroysData ? ['**may destroy data: asks for consent**'] : []),
    ];
    const rows = paramRows(method.params);
    lines.push(`### ${method.name}`, '', method.summary, '', `Result: ${method.result}. It ${marks.join('; ')}.`, '');
    if (rows.length > 0) lines.push('| parameter | type | needed | meaning |', '| --- | --- | --- | --- |', ...rows, '');
  }
  const shapes = [
    ...shapesOf('src/core/views.ts', 'all'),
    ...shapesOf('src/core/host-views.ts', [
      'VolumeName',
      'AgentView',
      'GrantView',
      'HostView',
      'MountView',
      'AnswerView',
      'InquiryView',
      'CertificateView',
    ]),
    ...shapesOf('src/core/mount-facts.ts', [
      'Layer',
      'ProcessRef',
      'MountedFact',
      'OpenFact',
      'NotMountedFact',
      'UnknownFact',
      'HostFact',
      'NoAnswerReason',
    ]),
    ...shapesOf('src/core/inquiry.ts', ['Finding']),
    ...shapesOf('src/core/inquiry-text.ts', ['Destruction']),
    ...shapesOf('src/core/audit.ts', 'all'),
    ...shapesOf('src/core/rows.ts', ['RegionRun', 'VolumeAttribute', 'CopyKind', 'FenceLevel', 'GroupRow', 'HostAccess', 'DeviceSettings']),
    ...shapesOf('src/engine/api.ts', ['VerifyReport', 'FaultRule']),
    ...shapesOf('src/control/method-table.ts', ['MethodView']),
  ];
  lines.push('## Shapes', '', 'As TypeScript declares them.', '', '```ts', shapes.join('\n\n'), '```', '');
  return lines.join('\n');
};

export const faultReference = (): string => {
  const errnoNames = new Map(Object.entries(NBD_ERRNO).map(([name, value]) => [value, name]));
  const exits: ReadonlyArray<readonly [number, string]> = [
    [EXIT.done, 'done'],
    [EXIT.timeout, 'the state waited for did not come in time'],
    [EXIT.broken, 'something is broken: the store, the engine, or the way to it'],
    [EXIT.changed, 'things changed between looking and acting: look again'],
    [EXIT.refused, 'refused: not in this state, not for this volume, not for you'],
    [EXIT.mounted, 'refused: a host has the volume in use'],
    [EXIT.noAnswer, 'refused: a host did not answer whether it has the volume in use'],
    [EXIT.noCandidate, 'no volume, or not enough regions, for what was asked'],
    [EXIT.usage, 'the command line or a parameter is wrong'],
  ];
  return [
    '# Faults',
    '',
    WRITTEN_BY,
    '',
    'Every error has a code that stays the same: in `error.data.code` on the control socket, in `error.code` of `--json`, as `code` of the',
    "library's `TwinvolError`, and in brackets at the end of the command line's message. `twinvol explain CODE` shows one of them.",
    '',
    '## Exit statuses of the command line',
    '',
    '| status | meaning |',
    '| --- | --- |',
    ...exits.map(([status, meaning]) => `| ${status} | ${meaning} |`),
    '',
    '## Codes',
    '',
    '| code | exit | NBD error | meaning | remedy, where nothing better is known |',
    '| --- | --- | --- | --- | --- |',
    ...Object.entries(FAULTS).map(
      ([code, fault]) => `| \`${code}\` | ${fault.exit} | ${errnoNames.get(fault.errno)} | ${fault.means} | ${fault.remedy} |`,
    ),
    '',
  ].join('\n');
};
