/** What counts as the peer's fault: only that is told to it in the error's own words. */
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { ByteStreamError, EndOfStream } from "../../src/protocol/byte-stream.ts";
import { WireError } from "../../src/protocol/wire.ts";
import { isPeerFault } from "../../src/sandbox/told-errors.ts";

test.each([
  new ByteStreamError("ECONNRESET", "read ECONNRESET"),
  new EndOfStream(),
  new WireError("a flag is 7"),
])("%s is the peer's", (error) => {
  expect(isPeerFault(error)).toBe(true);
});

test("G3: a system error, whose message may name paths of the host, is not passed on", async () => {
  const error = await readFile("/nowhere/secret").catch((caught: unknown) => caught);
  expect(error).toHaveProperty("code", "ENOENT");
  expect(isPeerFault(error)).toBe(false);
});
