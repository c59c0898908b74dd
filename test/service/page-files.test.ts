import { join } from "node:path";
import { expect, test } from "vitest";
import { HttpError } from "../../src/service/web/http.ts";
import { pageRoutes } from "../../src/service/web/web.ts";

test("a page that was not built is an error that says what builds it", () => {
  const missing = (): unknown => pageRoutes(join(import.meta.dirname, "nothing"));
  expect(missing).toThrow(HttpError);
  expect(missing).toThrow(/^The page cannot be served: .*index\.html.*; build it with npm run build\.$/);
});
