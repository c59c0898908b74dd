import { afterAll, beforeAll, describe } from "vitest";
import { type Daemon, type DaemonOptions, lab, type NixVersion } from "./lab.ts";

/**
 * Describes tests once for each version, with one daemon of it that they share; it is started before the first
 * and stopped after the last of them.
 *
 * @param tests called at collection time, so the daemon comes as a function: call it inside tests and hooks
 */
export function describeEachVersion(
  name: string,
  tests: (version: NixVersion, daemon: () => Daemon) => void,
  options: DaemonOptions | ((version: NixVersion) => DaemonOptions) = {},
): void {
  describe.each(lab.versions)(`${name} [daemon %s]`, (version) => {
    let daemon: Daemon | undefined;
    beforeAll(async () => {
      daemon = await lab.start(version, typeof options === "function" ? options(version) : options);
    });
    afterAll(() => daemon?.stop());
    tests(version, () => {
      if (daemon === undefined) throw new Error("The daemon is only there inside tests and hooks.");
      return daemon;
    });
  });
}
