import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type AptArchive, sourcesFile } from "./apt-sources.ts";
import { mustRun } from "./command.ts";

/**
 * Downloads packages with all their dependencies using our own apt state; the machine's is not touched.
 *
 * @param state a folder for that state
 * @param packages names as for apt-get, such as `nix-bin=2.8.*`
 * @returns the folder with the packages
 * @throws LabError with apt's message if one of them is not available
 */
export async function download(
  state: string,
  archive: AptArchive,
  suite: string,
  packages: readonly string[],
): Promise<string> {
  for (const folder of ["lists/partial", "cache/archives/partial"]) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  writeFileSync(join(state, "status"), "");
  writeFileSync(join(state, "lab.sources"), sourcesFile(archive, suite));
  const options = [
    `Dir::State=${state}`,
    `Dir::State::status=${state}/status`,
    `Dir::Cache=${state}/cache`,
    `Dir::Etc::SourceList=${state}/lab.sources`,
    "Dir::Etc::SourceParts=-",
    "Dir::Etc::Preferences=-",
    "Dir::Etc::PreferencesParts=-",
    "APT::Install-Recommends=false",
    "APT::Sandbox::User=root",
    "APT::Update::Error-Mode=any",
    "Acquire::Languages=none",
    "Acquire::Retries=3",
  ].flatMap((option) => ["-o", option]);
  const patience = { timeoutMs: 600_000 };
  await mustRun(["apt-get", ...options, "update"], patience);
  await mustRun(["apt-get", ...options, "-y", "install", "--download-only", ...packages], patience);
  return join(state, "cache", "archives");
}
