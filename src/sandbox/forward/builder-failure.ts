/**
 * How a builder failed, out of upstream's words for it. Those never reach a client themselves, for they name hosts,
 * users and other people's paths; what is read out of them here is what the derivation itself did.
 */
import type { StorePath } from "../../store/store-path.ts";

export interface BuilderFailure {
  readonly derivation: StorePath;
  /** What the builder did, to follow "the builder of X". */
  readonly what: string;
}

/**
 * Without colours: up to 2.30 "builder for '…' failed with …", later "Cannot build '…'. Reason: builder failed with …".
 * Nothing may stand between the two, for it could be another derivation's.
 */
const kinds: ReadonlyArray<readonly [pattern: RegExp, what: (detail: string) => string]> = [
  [
    /(?:builder for|Cannot build) '([^']+)'(?:\.\s+Reason: builder)? failed with exit code (\d{1,3})(?!\d)/,
    (code) => `failed with exit code ${code}`,
  ],
  [
    /(?:builder for|Cannot build) '([^']+)'(?:\.\s+Reason: builder)? failed due to signal (\d{1,3})(?!\d)/,
    (signal) => `was killed by signal ${signal}`,
  ],
  [
    /builder for '([^']+)' failed to produce output path (?:for output )?'([^']+)'/,
    (output) => `did not make its output '${output}'`,
  ],
];

/** Undefined where the words tell of something else, or of nothing that a client may know. */
export function builderFailure(upstreamError: string): BuilderFailure | undefined {
  // Lines of the builders' own logs are among upstream's words, and could say anything, for other derivations too.
  const text = upstreamError
    .replaceAll(/\x1b\[[0-9;]*m/g, "")
    .split("\n")
    .filter((line) => !/^\s*>/.test(line))
    .join("\n");
  for (const [pattern, what] of kinds) {
    const [, derivation, detail] = pattern.exec(text) ?? [];
    if (derivation !== undefined && detail !== undefined) return { derivation, what: what(detail) };
  }
  return undefined;
}
