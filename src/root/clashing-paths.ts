/** Where the daemon's own `sandbox-paths` put something into a folder that the pre-build hook maps. */

/**
 * Since 2.35 Nix makes places to mount on exclusively, so such a build cannot start; before, the one hides the other.
 * @param setting the value of `sandbox-paths`: `TARGET` or `TARGET=SOURCE`, either with a "?" at its end
 * @returns the first such place
 */
export function clashInside(folder: string, setting: string): string | undefined {
  return setting
    .split(/\s+/)
    .map((entry) => entry.replace(/=.*|\?$/, "").replace(/\/+/g, "/"))
    .find((target) => target.startsWith(`${folder}/`) && target !== `${folder}/`);
}
