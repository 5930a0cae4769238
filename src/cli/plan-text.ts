/** What a command would do (`--plan`), for people. */
import type { PlanView, RegionMove } from '../core/views.ts';
import { lossText } from '../core/inquiry-text.ts';
import { formatSize } from '../core/units.ts';
import type { Paint } from './style.ts';
import { textFields } from './text-table.ts';

export const isPlan = (value: unknown): value is PlanView =>
  typeof value === 'object' && value !== null && (value as { plan?: unknown }).plan === true;

/** More pieces than this are counted, not listed; `--json` has them all. */
const PIECES_SHOWN = 4;

const moveText = ({ from, to, firstRegion, regions, runs }: RegionMove): string => {
  const logical = `${regions === 1 ? 'region' : 'regions'} ${span(firstRegion, regions)} of ${from ?? to ?? ''}`;
  const pieces = runs.slice(0, PIECES_SHOWN).map(({ pv, start, count }) => `${span(start, count)} of physical volume ${pv}`);
  if (runs.length > pieces.length) pieces.push(`${runs.length - pieces.length} more pieces`);
  const physical = pieces.length === 0 ? 'some of them are still being cleared' : pieces.join(', ');
  return to === null
    ? `${logical} to the unassigned-region table: ${physical}`
    : `${logical} from the unassigned-region table: ${physical}`;
};

const span = (first: number, count: number): string => (count === 1 ? String(first) : `${first} to ${first + count - 1}`);

export const planText = (plan: PlanView, paint: Paint): string => {
  const fields: Array<readonly [string, string]> = plan.steps.map((step, index) => [index === 0 ? 'would' : '', step] as const);
  if (plan.volumes.length > 0) fields.push(['volumes', plan.volumes.join(', ')]);
  if (plan.hosts.length > 0) fields.push(['hosts', plan.hosts.join(', ')]);
  if (plan.regions > 0) fields.push(['regions', String(plan.regions)]);
  for (const move of plan.moves) fields.push(['moves', moveText(move)]);
  if (plan.bytes > 0) fields.push(['bytes', formatSize(plan.bytes)]);
  for (const destruction of plan.destroys) fields.push(['destroys', lossText(destruction)]);
  return `plan of ${plan.command}\n${textFields(fields, paint)}\nnothing was changed`;
};
