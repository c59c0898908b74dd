import { describe, expect, test } from "vitest";
import { matchesUrlPattern, patternCovers, urlPatternProblem } from "../../src/policy/url-pattern.ts";

describe("URL patterns of fixed outputs", () => {
  test.each([
    ["https://example.org/a.tar.gz", "https://example.org/*"],
    ["https://example.org/a.tar.gz", "https://example.org/a.tar.gz"],
    ["https://EXAMPLE.org/a", "https://example.org/*"],
    ["HTTPS://example.org/a", "https://example.org/*"],
    ["https://cdn.example.org/a?b=c#d", "https://*.example.org/*"],
    ["http://example.org:8080/a", "http://example.org:*/*"],
    ["https://example.org/x/y/z.tar", "https://example.org/*/y/*.tar"],
    ["https://example.org/v1..v2/a...b/.c", "https://example.org/*"],
    ["https://[::1]/a", "https://[::1]/*"],
  ])("%s is matched by %s", (url, pattern) => {
    expect(matchesUrlPattern(pattern, url)).toBe(true);
  });

  test.each([
    ["another host", "https://evil.test/", "https://example.org/*"],
    ["a host that only ends alike", "https://badexample.org/", "https://*.example.org/*"],
    ["the wanted host in the path", "https://evil.test/x.example.org/", "https://*.example.org/*"],
    ["the wanted host in the query", "https://evil.test/?.example.org/", "https://*.example.org/*"],
    ["the wanted host as a user name", "https://example.org@evil.test/", "https://example.org/*"],
    ["a user name at all", "https://me@example.org/", "https://*/*"],
    [
      "a backslash, which some readers take for a slash",
      "https://evil.test\\.example.org/",
      "https://*.example.org/*",
    ],
    ["another scheme", "http://example.org/", "https://example.org/*"],
    ["a port that was not named", "https://example.org:8080/", "https://example.org/*"],
    ["a port where any host is", "http://example.org:22/", "http://*/*"],
    ["a port after a host of any end", "http://example.org:22/", "http://example.*/*"],
    [
      "a path that climbs by an encoded slash",
      "https://example.org/ours/..%2ftheirs",
      "https://example.org/ours/*",
    ],
    ["one that begins with one", "https://example.org/ours/x%5c%2e%2e/theirs", "https://example.org/ours/*"],
    ["one with a parameter", "https://example.org/ours/..;/theirs", "https://example.org/ours/*"],
    ["a path that climbs", "https://example.org/ours/../theirs/x", "https://example.org/ours/*"],
    [
      "a path that climbs in disguise",
      "https://example.org/ours/%2E./theirs/x",
      "https://example.org/ours/*",
    ],
    ["a path that ends climbing", "https://example.org/ours/..", "https://example.org/ours/*"],
    ["a line break", "https://example.org/\nx", "https://example.org/*"],
    ["no path", "https://example.org", "https://example.org/*"],
    ["a URL with a star of its own", "https://*/*", "https://example.org/*"],
    ["overlapping ends", "https://example.org/aba", "https://example.org/ab*ba"],
  ])("%s is not matched", (_, url, pattern) => {
    expect(matchesUrlPattern(pattern, url)).toBe(false);
  });

  test("matching takes linear time, whatever a client sends", () => {
    const url = `https://example.org/${"a".repeat(200_000)}b`;
    expect(matchesUrlPattern(`https://example.org/${"*a".repeat(50)}*c`, url)).toBe(false);
  });

  test.each([
    "example.org",
    "https://example.org",
    "https:///x",
    "https://a@b/*",
    "https://a/../*",
    "https://ä/",
    "file:///srv/mirror/*",
    "ftp://example.org/*",
  ])("%s is refused as a pattern", (pattern) => {
    expect(urlPatternProblem(pattern)).toMatch(/^expected/);
  });

  test("a pattern covers itself and narrower ones, and not wider ones", () => {
    const wide = "https://*.example.org/*";
    const narrow = "https://cdn.example.org/src/*";
    expect(patternCovers(wide, wide)).toBe(true);
    expect(patternCovers(wide, narrow)).toBe(true);
    expect(patternCovers(narrow, wide)).toBe(false);
  });
});
