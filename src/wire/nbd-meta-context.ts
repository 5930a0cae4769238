/**
 * Which metadata contexts a client's queries name (NBD specification, "Metadata querying").
 *
 * A context is `namespace:leaf`. A query for listing may leave the leaf out (`base:`), which means every context of
 * the namespace; `qemu:dirty-bitmap:` is such a wildcard one level down. For selecting, only whole names count.
 * Queries of unknown namespaces are ignored, as the specification demands.
 */

/** Allocation status, defined by the specification itself. */
export const CONTEXT_ALLOCATION = 'base:allocation';
/** Regions written since the split, in twinvol's own namespace. */
export const CONTEXT_DIRTY = 'twinvol:dirty';
/** The same bitmap under the name that qemu's and libvirt's backup tools ask for. */
export const contextOfBitmap = (bitmapName: string): string => `qemu:dirty-bitmap:${bitmapName}`;

/** A query has to have a namespace and a colon. */
export const isQueryWellFormed = (query: string): boolean => query.indexOf(':') > 0;

/** Contexts for LIST_META_CONTEXT: all of them without a query, else those that match one, each once, in export order. */
export const listContexts = (available: readonly string[], queries: readonly string[]): readonly string[] => {
  if (queries.length === 0) return available;
  const whole = new Set(queries);
  const wildcards = [...whole].filter((query) => query.endsWith(':'));
  return available.filter((name) => whole.has(name) || wildcards.some((prefix) => name.startsWith(prefix)));
};

/** Contexts for SET_META_CONTEXT: those that a query names in full, each once, in export order. */
export const selectContexts = (available: readonly string[], queries: readonly string[]): readonly string[] => {
  const whole = new Set(queries);
  return available.filter((name) => whole.has(name));
};
