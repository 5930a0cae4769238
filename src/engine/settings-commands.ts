/**
 * The device's settings: durable first, then in force. A setting that takes access away ends the connections that would
 * not be let in any more, since a setting that holds only for newcomers is none.
 */
import type { DeviceSettings } from '../core/rows.ts';
import type { PlanView } from '../core/views.ts';
import type { Planned } from './api.ts';
import type { DeviceContext } from './context.ts';
import { endUngranted } from './host-clients.ts';
import { planView } from './plan.ts';

export class SettingsCommands {
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  get(): DeviceSettings {
    return this.#context.store.tables.settings;
  }

  async set({ plan, ...changes }: Planned & Partial<DeviceSettings>): Promise<DeviceSettings | PlanView> {
    const { store, plane, events, log } = this.#context;
    const before = this.get();
    if (plan === true) return settingsPlan(before, changes);
    const followsGrants = changes.exportsFollowGrants ?? before.exportsFollowGrants;
    if (followsGrants !== before.exportsFollowGrants) {
      const text = `exportsFollowGrants ${followsGrants ? 'on' : 'off'}`;
      await this.#context.audit.host({ change: 'setting', host: null, volume: null, access: null, text });
    }
    await store.commit((tables) => [{ op: 'settings-put', settings: { ...tables.settings, ...changes } }]);
    const after = this.get();
    if (after.durability !== before.durability) await plane.setDurability(after.durability);
    if (after.secondaryAccess === 'refuse' && before.secondaryAccess !== 'refuse') await this.#endReadersOfSecondaries();
    if (after.exportsFollowGrants && !before.exportsFollowGrants) await endUngranted(this.#context);
    log.info({ changes }, 'settings changed');
    events.append('change', 'device', 'settings', { old: before, new: after });
    return after;
  }

  async #endReadersOfSecondaries(): Promise<void> {
    const { plane, pairs } = this.#context;
    for (const pair of pairs.rows()) if (pair.state !== 'split') await plane.clientsEnd({ volume: pair.secondary });
  }
}

const settingsPlan = (before: DeviceSettings, changes: Partial<DeviceSettings>): PlanView => {
  const names = (Object.keys(changes) as (keyof DeviceSettings)[]).filter((name) => changes[name] !== before[name]);
  const steps = names.map((name) => `${name}: ${before[name]} -> ${changes[name]}`);
  if (changes.secondaryAccess === 'refuse' && before.secondaryAccess !== 'refuse')
    steps.push('connections to secondaries of pairs that are not split are ended');
  if (changes.exportsFollowGrants === true && !before.exportsFollowGrants)
    steps.push('connections of hosts that were not granted the volume are ended');
  return planView('settings set', { steps: steps.length === 0 ? ['every setting has that value already'] : steps });
};
