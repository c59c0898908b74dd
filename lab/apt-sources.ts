import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One archive out of the machine's apt configuration: where, and how it is trusted. */
export interface AptArchive {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Options such as Signed-By, in the spelling and layout of deb822, each with its continuation lines. */
  readonly options: ReadonlyMap<string, string>;
}

/** The archives of binary packages that this machine's apt is set up for, in the order of its files. */
export function machineArchives(aptFolder = "/etc/apt"): AptArchive[] {
  const parts = join(aptFolder, "sources.list.d");
  const files = [
    join(aptFolder, "sources.list"),
    ...(existsSync(parts)
      ? readdirSync(parts)
          .sort()
          .map((name) => join(parts, name))
      : []),
  ];
  return files
    .filter((file) => existsSync(file))
    .flatMap((file) => {
      const text = readFileSync(file, "utf8");
      if (file.endsWith(".sources")) return parseDeb822(text);
      return file.endsWith(".list") ? parseOneLine(text) : [];
    });
}

/** Parses lines such as `deb [signed-by=/k.gpg arch=amd64] URI SUITE COMPONENT…` (sources.list(5)). */
export function parseOneLine(text: string): AptArchive[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (match === null) return [];
    const [, bracket = "", uri = "", suite = "", components = ""] = match;
    const options = new Map<string, string>();
    for (const option of words(bracket)) {
      const [name = "", value = ""] = option.split("=", 2);
      const deb822Name = oneLineOptions.get(name.toLowerCase());
      if (deb822Name !== undefined) options.set(deb822Name, value.replaceAll(",", " "));
    }
    return [{ uri, suites: [suite], components: words(components), options }];
  });
}

/** Parses the paragraphs of a `.sources` file (sources.list(5), "deb822-style format"). */
export function parseDeb822(text: string): AptArchive[] {
  const withoutComments = text
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .join("\n");
  return withoutComments.split(/\n\s*\n/).flatMap((paragraph) => {
    const fields = new Map<string, string>();
    for (const field of paragraph.split(/\n(?=\S)/)) {
      const colon = field.indexOf(":");
      if (colon > 0) fields.set(field.slice(0, colon).trim().toLowerCase(), field.slice(colon + 1).trim());
    }
    const list = (name: string): string[] => words(fields.get(name) ?? "");
    if (!list("types").includes("deb") || /^(no|false|0)$/i.test(fields.get("enabled") ?? "yes")) return [];
    const options = new Map<string, string>();
    for (const name of oneLineOptions.values()) {
      const value = fields.get(name.toLowerCase());
      if (value !== undefined) options.set(name, value);
    }
    return list("uris").map((uri) => ({
      uri,
      suites: list("suites"),
      components: list("components"),
      options,
    }));
  });
}

/** The options that say how an archive is trusted or reached: one-line spelling to deb822 spelling. */
const oneLineOptions = new Map([
  ["signed-by", "Signed-By"],
  ["trusted", "Trusted"],
]);

const debianSuite = /^(bullseye|bookworm|trixie|forky|sid|oldoldstable|oldstable|stable|testing|unstable)$/;

/** The archives of Debian itself among the machine's: those that also offer other suites. */
export function debianArchives(archives: readonly AptArchive[]): AptArchive[] {
  return archives.filter(
    ({ suites, components }) =>
      components.includes("main") && suites.some((suite) => debianSuite.test(suite)),
  );
}

/** The text of a `.sources` file for one suite of an archive, with nothing but its package index. */
export function sourcesFile(archive: AptArchive, suite: string): string {
  const options = [...archive.options].map(([name, value]) => `${name}: ${value}\n`).join("");
  return `Types: deb\nURIs: ${archive.uri}\nSuites: ${suite}\nComponents: main\nTargets: Packages\n${options}`;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}
