/** What the agent needs of a log; a pino logger is one. */
export type AgentLog = {
  debug(facts: object, text: string): void;
  info(facts: object, text: string): void;
  warn(facts: object, text: string): void;
};
