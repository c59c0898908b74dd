import { expect, test } from "vitest";
import { builderFailure } from "../../src/sandbox/forward/builder-failure.ts";

const derivation = "/nix/store/wxisx4g18ssq176x0xdny5hyld2gnldb-exit.drv";
const output = "/nix/store/kkvqmx343w694kbnv93dal5fq21cdy1h-exit";

// Texts of real daemons.
test.each([
  ["2.3", `builder for '${derivation}' failed with exit code 3`, "failed with exit code 3"],
  [
    "2.8",
    `\x1b[31;1merror:\x1b[0m builder for '\x1b[35;1m${derivation}\x1b[0m' failed with exit code 3;\n       last 1 log lines:\n       > hi\n`,
    "failed with exit code 3",
  ],
  [
    "2.34",
    `Cannot build '\x1b[35;1m${derivation}\x1b[0m'.\nReason: \x1b[31;1mbuilder failed with exit code 3\x1b[0m.\nOutput paths:\n  ${output}`,
    "failed with exit code 3",
  ],
  ["2.8", `builder for '${derivation}' failed due to signal 9 (Killed)`, "was killed by signal 9"],
  [
    "2.3",
    `builder for '${derivation}' failed to produce output path '${output}'`,
    `did not make its output '${output}'`,
  ],
  [
    "2.34",
    `builder for '${derivation}' failed to produce output path for output 'out' at "${derivation}.chroot/root${output}"`,
    "did not make its output 'out'",
  ],
])("reads how a builder failed out of the words of %s", (_, words, what) => {
  expect(builderFailure(words)).toEqual({ derivation, what });
});

test.each([
  [
    "another derivation's exit code",
    `Cannot build '${derivation}'.\nbuilder for '/nix/store/x.drv' failed with exit code 7`,
  ],
  [
    "what another builder's log says of it",
    `builder for '/nix/store/x.drv' failed;\n       last 1 log lines:\n       > builder for '${derivation}' failed with exit code 7\n`,
  ],
  ["a number that no exit code can be", `builder for '${derivation}' failed with exit code 20251122`],
  ["a dependency", `Cannot build '${derivation}'.\nReason: 1 dependency failed.`],
  ["a hash", `hash mismatch in fixed-output derivation '${derivation}':\n  specified: a\n  got: b`],
])("tells nothing of %s", (_, words) => {
  expect(builderFailure(words)?.derivation).not.toBe(derivation);
});
