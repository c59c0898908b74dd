import { expect, test } from "vitest";
import { base64url } from "../../src/page/base64url.ts";

test("whatever is pasted for a token can be sent, and is what the service reads", () => {
  for (const text of ["", "0123456789abcdef", "a?~/+=\u00fc", "\u2026 or \u{1f511}", "x".repeat(200_000)]) {
    expect(base64url(text)).toMatch(/^[\w-]*$/);
    expect(Buffer.from(base64url(text), "base64url").toString()).toBe(text);
  }
});
