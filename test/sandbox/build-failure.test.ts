import { expect, test } from "vitest";
import { failuresIn } from "../../src/sandbox/forward/build-failure.ts";

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
    `did not produce its output '${output}'`,
  ],
  [
    "2.34",
    `builder for '${derivation}' failed to produce output path for output 'out' at "${derivation}.chroot/root${output}"`,
    "did not produce its output 'out'",
  ],
  [
    "2.8",
    `error: cycle detected in build of '${derivation}' in the references of output 'a' from output 'b'`,
    "produced outputs that refer to each other: 'a' and 'b'",
  ],
  [
    "2.8",
    `error: a 'x86_64-linux' with features {kvm} is required to build '${derivation}', but I am a 'x86_64-linux' with features {benchmark}`,
    "needs a machine of the system 'x86_64-linux' with the features {kvm}, which the nix-daemon does not have",
  ],
  [
    "2.34",
    `error: Cannot build '${derivation}'.\n       Reason: missing system features\n       Required features: {kvm}\n       Available features: {}`,
    "needs a machine with the features {kvm}, which the nix-daemon does not have",
  ],
  [
    "2.34",
    `error: Cannot build '${derivation}'.\n       Reason: platform mismatch\n       Required system: 'riscv64-linux'\n       Current system: 'x86_64-linux'`,
    "needs a machine of the system 'riscv64-linux', which the nix-daemon does not have",
  ],
  [
    "2.34",
    `error: file "${derivation}.chroot/root${output}" has an unsupported type`,
    "produced a file of a type that the store cannot hold",
  ],
  [
    "2.26",
    `error: building of '${derivation}^out' from .drv file timed out after 1 seconds`,
    "took longer than 1 seconds",
  ],
])("reads how a builder failed out of the words of %s", (_, words, what) => {
  expect(failuresIn(words)).toEqual([{ of: derivation, what, paths: [] }]);
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
  [
    "a line of a log that is longer than what is looked at",
    `builder for '/nix/store/x.drv' failed;\n       last 1 log lines:\n       > ${"x".repeat(64 * 1024)}builder for '${derivation}' failed with exit code 7\n`,
  ],
])("tells nothing of %s", (_, words) => {
  expect(failuresIn(words).map(({ of }) => of)).not.toContain(derivation);
});

test("reads which paths an output must not refer to, and the hashes of contents", () => {
  const forbidden = `${derivation.slice(0, -4)}-dep`;
  expect(
    failuresIn(
      `error: output '${output}' is not allowed to refer to the following paths:\n         ${forbidden}\n`,
    ),
  ).toEqual([
    {
      of: output,
      what: "produced an output that refers to paths which the derivation forbids",
      paths: [forbidden],
    },
  ]);
  expect(
    failuresIn(
      `error: hash mismatch in fixed-output derivation '${derivation}':\n         specified: sha256-a\n            got:    sha256-b`,
    ),
  ).toEqual([
    {
      of: derivation,
      what: "produced contents with another hash: specified sha256-a, got sha256-b",
      paths: [],
    },
  ]);
});
