// Prints the result of a test run, "N passed, N failed" on the last line, from the report of vitest's JSON
// reporter. Usage: node scripts/count-tests.mjs REPORT EXIT_CODE_OF_VITEST. Exits with 0 only if some test ran and
// none failed.
import { readFileSync } from "node:fs";

const [file, exitCode] = process.argv.slice(2);

const read = () => {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return { testResults: [] };
  }
};

let passed = 0;
let failed = 0;
let skipped = 0;
for (const { status, assertionResults, name, message } of read().testResults) {
  const before = failed;
  for (const test of assertionResults) {
    if (test.status === "passed") passed++;
    else if (test.status === "failed") failed++;
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
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
