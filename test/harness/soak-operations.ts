/** What a soak does, and how often: weights of its operations. */
export type Weights = Readonly<Record<string, number>>;

export const OPERATIONS = {
  write: 30,
  zeros: 8,
  read: 20,
  flush: 4,
  burst: 4,
  pair: 22,
  failing: 4,
  other: 5,
  settings: 1,
  restart: 0.6,
  grown: 1,
} as const satisfies Weights;
