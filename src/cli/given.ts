/**
 * The options that were given, without those that were not: the engine takes a key or none, but no `undefined`.
 */
export const given = <Options extends object>(options: Options): { [Key in keyof Options]?: Exclude<Options[Key], undefined> } => {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never;
};
