import { describe, expect, test } from "vitest";
import { expanded, MOST_URLS } from "../../src/policy/fetch-plan.ts";

describe("mirror:// URLs", () => {
  test("stand for one URL for each mirror of their site", () => {
    const mirrors = (site: string) => (site === "here" ? ["https://a.test/x/", "https://b.test"] : []);
    expect(expanded(["mirror://here/file", "mirror://nowhere/file", "https://c.test/file"], mirrors)).toEqual(
      ["https://a.test/x/file", "https://b.test/file", "https://c.test/file"],
    );
  });

  test("are not multiplied by a list of mirrors of any length", () => {
    let asked = 0;
    function* endless(): Generator<string> {
      for (;;) {
        asked++;
        yield "https://a.test";
      }
    }
    const urls = Array.from({ length: MOST_URLS }, () => "mirror://here/file");
    const mirrors = () => endless();
    expect(expanded(urls, mirrors)).toHaveLength(MOST_URLS);
    expect(asked).toBeLessThan(3 * MOST_URLS);
  });

  test("that would be longer than any server takes are left out", () => {
    expect(expanded(["mirror://here/file"], () => [`https://a.test/${"x".repeat(9000)}`])).toEqual([]);
  });
});
