// Prints how a run of the tests went, "N passed, N failed" on the last line, from the report of vitest's JSON reporter.
// Usage: node scripts/count-tests.mjs REPORT EXIT_CODE_OF_VITEST [NAME=EXIT_CODE | "NAME=skipped: WHY"]...
// What follows the first two are other things that ran: each counts as a test. Exits with 0 only if some test ran and none failed.
import { readFileSync } from "node:fs";

const [file, exitCode, ...others] = process.argv.slice(2);

function read() {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return { testResults: [] };
  }
}

let passed = 0;
let failed = 0;
let skipped = 0;
const retried = [];
for (const { status, assertionResults, name, message } of read().testResults) {
  const before = failed;
  for (const test of assertionResults) {
    if (test.status === "passed") {
      passed++;
      // Of a test that passed in the end, the report has the failures before.
      if (test.failureMessages?.length > 0) retried.push({ name, ...test });
    } else if (test.status === "failed") failed++;
    else skipped++;
  }
  // A file that could not be loaded, or whose set-up failed, has tests that nobody counted.
  if (status === "failed" && failed === before) {
    failed++;
    console.log(`${name} failed as a whole: ${message ?? ""}`.trimEnd());
  }
}
if (passed + failed === 0) {
  console.log("no test ran");
  failed = 1;
}
// Errors outside of tests (unhandled rejections, a crash) show in vitest's exit code alone.
if (Number(exitCode) !== 0 && failed === 0) {
  console.log(`the test run itself ended with exit code ${exitCode}`);
  failed = 1;
}
for (const other of others) {
  const [, name, outcome] = /^(.*?)=(.*)$/.exec(other);
  if (outcome === "0") passed++;
  else if (outcome.startsWith("skipped")) skipped++;
  else failed++;
  if (outcome !== "0") console.log(`${name}: ${/^\d+$/.test(outcome) ? `exit code ${outcome}` : outcome}`);
}
if (retried.length > 0) {
  console.log(`${retried.length} passed only when tried again:`);
  for (const { name, fullName, failureMessages } of retried)
    console.log(`  ${name}: ${fullName}\n    ${failureMessages[0].split("\n")[0]}`);
}
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
