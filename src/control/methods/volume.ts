/** Volumes on the control socket: create, list, show, rename, grow, delete, set, uri. */
import { z } from 'zod';
import { attribute, consent, defineMethod, planned, sizeBytes, volumeRef } from '../method.ts';

const name = z.string().min(1).max(512).describe('1 to 128 letters, digits, ".", "_" or "-", not only digits');
const VOLUME_OR_PLAN = '`VolumeView`, or `PlanView` with `plan`';

export const volumeMethods = {
  'volume.create': defineMethod({
    summary: 'Makes a volume; it reads as zeros and takes no space until it is written.',
    params: z.strictObject({
      name,
      sizeBytes,
      attribute: attribute.exactOptional(),
      protected: z.boolean().exactOptional().describe('kept out of every automatic choice'),
      plan: planned,
    }),
    result: VOLUME_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.volumeCreate(params),
  }),
  'volume.list': defineMethod({
    summary: 'All volumes, by number.',
    params: z.strictObject({}),
    result: '`VolumeView[]`',
    changes: false,
    destroysData: false,
    handler: (engine) => engine.volumeList(),
  }),
  'volume.show': defineMethod({
    summary: 'One volume.',
    params: z.strictObject({ volume: volumeRef }),
    result: '`VolumeView`',
    changes: false,
    destroysData: false,
    handler: (engine, { volume }) => engine.volumeShow(volume),
  }),
  'volume.rename': defineMethod({
    summary: 'Gives a volume another name; its number and its UUID stay.',
    params: z.strictObject({ volume: volumeRef, name, plan: planned }),
    result: VOLUME_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.volumeRename(params),
  }),
  'volume.grow': defineMethod({
    summary: 'Makes a volume larger; what is added reads as zeros.',
    params: z.strictObject({ volume: volumeRef, sizeBytes, plan: planned }),
    result: VOLUME_OR_PLAN,
    changes: true,
    destroysData: false,
    handler: (engine, params) => engine.volumeGrow(params),
  }),
  'volume.delete': defineMethod({
    summary: 'Deletes a volume and its data.',
    params: z.strictObject({ volume: volumeRef, consent, plan: planned }),
    result: VOLUME_OR_PLAN,
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.volumeDelete(params),
  }),
  'volume.set': defineMethod({
    summary: 'Changes the attribute (`secondary`: into the pool), or keeps a volume out of every automatic choice.',
    params: z.strictObject({
      volume: volumeRef,
      attribute: attribute.exactOptional(),
      protected: z.boolean().exactOptional(),
      consent,
      plan: planned,
    }),
    result: VOLUME_OR_PLAN,
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.volumeSet(params),
  }),
  'volume.uri': defineMethod({
    summary: "The NBD URI of a volume's export.",
    params: z.strictObject({ volume: volumeRef }),
    result: 'text',
    changes: false,
    destroysData: false,
    handler: (engine, { volume }) => engine.uri(volume),
  }),
};
