/** Store paths as people give them. */
import { realpathSync } from "node:fs";
import { dirname } from "node:path";

/** A store path as given, or the target of a link such as `./result`; without anything below it. */
export function givenStorePath(given: string): string {
  let path = given;
  if (!/^\/nix\/store\/[^/]+$/.test(given)) {
    try {
      path = realpathSync(given);
    } catch {
      // It may have been collected since, but the audit still knows it.
    }
  }
  while (/\/[0-9a-z]{32}-[^/]+\/./.test(path)) path = dirname(path);
  return path;
}
