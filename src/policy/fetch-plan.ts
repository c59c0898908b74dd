/**
 * What nix-broker itself fetches for fixed outputs, where a profile lists URL patterns: which URLs, and what the contents
 * are. None of the derivation's code is run, so only those can be fetched that download a file, and at most unpack it, as
 * `builtin:fetchurl`, and nixpkgs' fetchurl and fetchzip do (pkgs/build-support/fetchurl and fetchzip in its tree).
 */
import type { FetchJob, Shape } from "../contract/fetch-job.ts";
import { type Derivation, fixedOutputAddress } from "../store/derivation.ts";
import type { StorePath } from "../store/store-path.ts";

/** What is to be fetched for a fixed output. */
export interface FetchPlan extends Pick<FetchJob, "hash" | "hashed" | "shapes"> {
  readonly output: StorePath;
  /** As the derivation names them, `mirror://` among them. */
  readonly urls: readonly string[];
  /** The path of nixpkgs' list of mirrors, if the derivation has one; "" if not. */
  readonly mirrorsFile: string;
  /** Whether the contents are known to be what the derivation's own code would make of the download. */
  readonly certain: boolean;
}

/** More would only keep others waiting. */
export const MOST_URLS = 64;
/** Servers refuse longer ones. Characters. */
const LONGEST_URL = 8192;

/**
 * Lines of the script with which fetchzip unpacks, up to what it does at the end with the one folder, or with all of it;
 * of every version since 2014. Text that is not among them may change the contents.
 */
const UNPACKING = [
  /^export PATH=\S+:\$PATH$/,
  /^unpackDir="\$TMPDIR\/unpack"$/,
  /^mkdir "\$unpackDir"$/,
  /^cd "\$unpackDir"$/,
  /^renamed="\$TMPDIR\/[^"]*"$/,
  /^mv "\$downloadedFile" "\$renamed"$/,
  /^unpackFile "\$renamed"$/,
  /^(?:result|fn)=[^;|]*$/,
  /^chmod -R \+w "\$unpackDir"$/,
  /^if \[ \$\(ls (?:-A )?"\$unpackDir" \| wc -l\) != 1 \]; then$/,
  /^echo "(?:error|hint): [^"$`]*"$/,
  /^exit 1$/,
  /^fi$/,
  /^if \[ -f "\$unpackDir\/\$fn" \]; then$/,
  /^mkdir "?\$out"?$/,
  /^chmod (?:-R )?(?:755|a-w|u\+w|go-w) "?\$out"?$/,
  /^#/,
  /^$/,
];
const STRIPS = /^mv "\$unpackDir\/\$fn" "\$out"$/;
const KEEPS_WHOLE = /^mv "\$unpackDir" "\$out"$/;

/** @returns the plan, or why it cannot be fetched here */
export function fetchPlan(derivation: Derivation): FetchPlan | string {
  const { attributes, outputs } = derivation;
  const [[name, output] = [], ...more] = [...outputs];
  const address = output && fixedOutputAddress(output);
  if (name !== "out" || !output || !address || more.length > 0)
    return "only one output, 'out', can be fetched";
  if (address.method !== "flat" && address.method !== "nar")
    return `an output that is hashed by the method '${address.method}' cannot be fetched`;
  if (attributes.has("leaveDotGit")) return "it clones a git repository, which nix-broker cannot fetch";
  const urls = [...new Set([...attributes.list("urls"), ...textOrList(derivation, "url")])];
  if (urls.length === 0)
    return "it names no URL: its contents are made by its own code, which gets no network access here";
  if (urls.length > MOST_URLS) return `it names more than ${MOST_URLS} URLs`;
  if (urls.some(({ length }) => length > LONGEST_URL))
    return `it names a URL of more than ${LONGEST_URL} characters`;
  const { shapes, certain } = shapesOf(derivation, address.method);
  return {
    output: output.path,
    urls,
    mirrorsFile: attributes.text("mirrorsFile") ?? "",
    hash: { algorithm: address.hash.algorithm, digest: address.hash.digest.toString("hex") },
    hashed: address.method,
    shapes,
    certain,
  };
}

function textOrList({ attributes }: Derivation, name: "url"): string[] {
  const value = attributes.structured(name);
  return Array.isArray(value) ? attributes.list(name) : [attributes.text(name) ?? ""].filter(Boolean);
}

function shapesOf(
  { attributes }: Derivation,
  method: "flat" | "nar",
): { shapes: readonly Shape[]; certain: boolean } {
  const script = attributes.text("postFetch") ?? "";
  if (method === "flat") return { shapes: ["file"], certain: script.trim() === "" };
  if (attributes.flag("executable")) return { shapes: ["executable", "file"], certain: script.trim() === "" };
  if (script.trim() === "" && !attributes.flag("unpack"))
    return { shapes: ["file", "executable"], certain: true };
  const lines = script.split("\n").map((line) => line.trim());
  const others = lines.filter((line) => !UNPACKING.some((known) => known.test(line)));
  const strips = others.filter((line) => STRIPS.test(line)).length;
  const wholes = others.filter((line) => KEEPS_WHOLE.test(line)).length;
  const certain =
    others.length === 1 && strips + wholes === 1 && lines.some((line) => line === 'unpackFile "$renamed"');
  return { shapes: wholes > strips ? ["whole", "stripped"] : ["stripped", "whole", "file"], certain };
}

/**
 * The URLs to be tried, `mirror://SITE/PATH` replaced by one for each mirror of that site.
 * @param mirrors what a site has; empty if the site is not known
 */
export function expanded(urls: readonly string[], mirrors: (site: string) => Iterable<string>): string[] {
  const all: string[] = [];
  // One by one: a sandbox writes the list of mirrors, too, and the two could be multiplied.
  for (const url of urls) {
    const [, site, rest] = /^mirror:\/\/([A-Za-z0-9_]+)\/(.*)$/s.exec(url) ?? [];
    if (site === undefined || rest === undefined) all.push(url);
    else
      for (const base of mirrors(site)) {
        if (all.length >= MOST_URLS) break;
        const mirrored = `${base}${base.endsWith("/") ? "" : "/"}${rest}`;
        if (mirrored.length <= LONGEST_URL) all.push(mirrored);
      }
  }
  return all.slice(0, MOST_URLS);
}

/** The sites whose mirrors the URLs need. */
export function mirrorSites(urls: readonly string[]): ReadonlySet<string> {
  return new Set(urls.flatMap((url) => /^mirror:\/\/([A-Za-z0-9_]+)\//.exec(url)?.[1] ?? []));
}
