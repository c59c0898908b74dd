/** Names that stand for URL patterns in `fixed_outputs`. */

/** Where the sources of most packages are: the hosts themselves, and those that they redirect downloads to. */
const FORGES = [
  "https://github.com/*",
  "https://codeload.github.com/*",
  "https://raw.githubusercontent.com/*",
  "https://objects.githubusercontent.com/*",
  "https://release-assets.githubusercontent.com/*",
  "https://gitlab.com/*",
  "https://codeberg.org/*",
  "https://git.sr.ht/*",
  "https://bitbucket.org/*",
] as const;

const presets: ReadonlyMap<string, readonly string[]> = new Map([["@forges", FORGES]]);

export const presetNames = [...presets.keys()];

/** The patterns that an entry of the list stands for: itself, unless it is the name of a preset. */
export function patternsOf(entry: string): readonly string[] {
  return presets.get(entry) ?? [entry];
}
