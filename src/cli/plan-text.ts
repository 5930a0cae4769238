/** What a command would do (`--plan`), for people. */
import type { PlanView } from '../core/views.ts';
import { lossText } from '../core/inquiry-text.ts';
import { formatSize } from '../core/units.ts';
import type { Paint } from './style.ts';
import { textFields } from './text-table.ts';

export const isPlan = (value: unknown): value is PlanView =>
  typeof value === 'object' && value !== null && (value as { plan?: unknown }).plan === true;

export const planText = (plan: PlanView, paint: Paint): string => {
  const fields: Array<readonly [string, string]> = plan.steps.map((step, index) => [index === 0 ? 'would' : '', step] as const);
  if (plan.volumes.length > 0) fields.push(['volumes', plan.volumes.join(', ')]);
  if (plan.hosts.length > 0) fields.push(['hosts', plan.hosts.join(', ')]);
  if (plan.regions > 0) fields.push(['regions', String(plan.regions)]);
  if (plan.bytes > 0) fields.push(['bytes', formatSize(plan.bytes)]);
  for (const destruction of plan.destroys) fields.push(['destroys', lossText(destruction)]);
  return `plan of ${plan.command}\n${textFields(fields, paint)}\nnothing was changed`;
};
