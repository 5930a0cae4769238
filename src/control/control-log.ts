/** What the control layer needs of a log; a pino logger is one. */
export type ControlLog = {
  debug(facts: object, text: string): void;
  info(facts: object, text: string): void;
  warn(facts: object, text: string): void;
  error(facts: object, text: string): void;
};

/** For users of the library who give no log. */
export const SILENT_LOG: ControlLog = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
