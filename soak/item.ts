/** What a build of the soak makes, as a tree: from it come both the expression and what its result has to be. */
import { nixString, sandboxScript } from "../lab/lab.ts";
import type { Random } from "./random.ts";

export interface Item {
  readonly name: string;
  /** `add`: a file given to `nix-store --add`; `build`: a derivation without a daemon; `opted-in`: one that gets one. */
  readonly kind: "add" | "build" | "opted-in";
  /** A file of lines, or a folder with a text and links. */
  readonly form: "file" | "folder";
  /** Of each pause of its script, in seconds. */
  readonly pause: number;
  /** What its script makes; only what opted in makes anything. */
  readonly makes: readonly Item[];
  /** How many of these, from the first on, its result mentions. */
  readonly mentioned: number;
}

/** What the result of an item mentions, in order. */
export function mentionsOf({ makes, mentioned }: Item): readonly Item[] {
  return makes.slice(0, mentioned);
}

/** The expression of an item that is built. */
export function expressionOf(item: Item, place: "outside" | "inside"): string {
  const script =
    item.kind === "opted-in"
      ? `export HOME="$PWD/home" PAGER=cat NIX_PAGER=cat; mkdir "$HOME"\n${scriptOf(item)}`
      : scriptOf(item);
  return sandboxScript(script, {
    name: item.name,
    ...(item.kind === "opted-in" && { features: ["nix-broker"] }),
    // Inside, builders are in the store, or this one.
    ...(place === "inside" && { attributes: { builder: nixString("/bin/sh") } }),
  });
}

function scriptOf(item: Item): string {
  const steps = item.makes.map(
    (made, index) => `${stepOf(made, `made${index}`)}\nsleep ${item.pause.toFixed(2)}`,
  );
  const variables = mentionsOf(item).map((_, index) => `$made${index}`);
  const result =
    item.form === "file"
      ? `printf '%s\\n' ${[item.name, ...variables].join(" ")} > $out`
      : [
          `mkdir $out; echo ${item.name} > $out/name`,
          ...variables.map((each, i) => `ln -s ${each} $out/link${i}`),
        ].join("\n");
  return [...steps, `sleep ${item.pause.toFixed(2)}`, result].join("\n");
}

/** Nothing makes another of its own name, so that ends the text of what makes others. */
function stepOf(item: Item, variable: string): string {
  if (item.kind === "add")
    return `echo ${item.name} > ${item.name}; ${variable}=$(nix-store --add ./${item.name})`;
  return `cat > ${item.name}.nix <<'END-OF-${item.name}'
${expressionOf(item, "inside")}
END-OF-${item.name}
${variable}=$(nix-build --no-out-link ${item.name}.nix)`;
}

/** How many inner derivations are asked for by several outer builds, at once or one after the other. */
const shared = 6;

/** A build for outside, nested ones among them. */
export function randomItem(random: Random, name: string): Item {
  const makes = Array.from({ length: random.whole(1, 4) }, (_, index) =>
    randomInner(random, `${name}-${index}`, 2),
  );
  // Nothing else may be among its references: what is not mentioned comes last.
  const mentioned = random.whole(1, makes.length);
  return {
    name,
    kind: "opted-in",
    form: random.pick(["file", "folder"]),
    // A long one now and then: what is lost while nothing is asked for shows at the end alone.
    pause: random.between(0, random.chance(0.2) ? 3 : 0.6),
    makes,
    mentioned,
  };
}

function randomInner(random: Random, name: string, depth: number): Item {
  const leaf = { name, form: "file", pause: random.between(0, 0.6), makes: [], mentioned: 0 } as const;
  if (random.chance(0.3)) return sharedInner(random.whole(1, shared));
  if (depth === 0 || random.chance(0.6)) return { ...leaf, kind: random.pick(["add", "build"]) };
  const makes = Array.from({ length: random.whole(1, 2) }, (_, index) =>
    randomInner(random, `${name}-${index}`, depth - 1),
  );
  return {
    ...leaf,
    kind: "opted-in",
    form: random.pick(["file", "folder"]),
    makes,
    mentioned: random.whole(1, makes.length),
  };
}

/** Always the same one for a number; every third opts in. */
function sharedInner(number: number): Item {
  const leaf: Item = {
    name: `shared-${number}`,
    kind: "build",
    form: "file",
    pause: 0.3,
    makes: [],
    mentioned: 0,
  };
  if (number % 3 !== 0) return leaf;
  return { ...leaf, kind: "opted-in", makes: [{ ...leaf, name: `shared-${number}-part` }], mentioned: 1 };
}
