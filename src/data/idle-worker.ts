/** A task that does nothing: running it makes the pool start a thread where it lacks one (data/worker-set.ts). */
export default (): undefined => undefined;
