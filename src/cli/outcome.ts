/** How a command ends, for scripts. */
export const exitCodes = {
  done: 0,
  /** The answer is negative, or the command failed. */
  notSo: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  /** The service cannot be reached. */
  unreachable: 3,
} as const;

/** The command line is wrong in a way that only the command itself can see. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}
