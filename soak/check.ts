/** Whether a build that succeeded is right: contents, references, and that all of it is there. */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Item, mentionsOf } from "./item.ts";
import { eventually, onStore, readOrNothing, type World } from "./world.ts";

/** Checks a result and all that it mentions; each fault found is counted. */
export async function checkResult(world: World, out: string, item: Item, when: string): Promise<void> {
  const made = new Map<string, Set<string>>();
  const wrong = contentsWrong(world, out, item, made);
  if (wrong !== undefined) {
    world.tally.fault(`${item.name}, ${when}: ${wrong}`);
    return;
  }
  world.tally.count("checks", `contents ${when}`, made.size);
  let lacking = await referencesWrong(world, made);
  // Those of an output are to come while its sandbox is not settled: its roots keep what it mentions.
  while (lacking !== undefined && isPending(world, [...made.keys()])) {
    world.tally.count("checks", "results whose references were to come");
    if (!(await eventually(() => !isPending(world, [...made.keys()])))) break;
    await sleep(100);
    lacking = await referencesWrong(world, made);
  }
  // It may have been settled between the two looks.
  if (lacking !== undefined) lacking = await referencesWrong(world, made);
  if (lacking !== undefined) world.tally.fault(`${item.name}, ${when}: ${lacking}`);
  else world.tally.count("checks", `references ${when}`, made.size);
}

/**
 * Reads a result, and what it mentions.
 *
 * @param made gets each path, with what it mentions
 * @returns what is wrong, if anything
 */
function contentsWrong(
  world: World,
  path: string,
  item: Item,
  made: Map<string, Set<string>>,
): string | undefined {
  if (!path.endsWith(`-${item.name}`)) return `${path} stands where ${item.name} should`;
  let found: readonly [string, ...string[]];
  try {
    found = read(world.lab.daemon.hostPath(path), item);
  } catch (error) {
    return `${path} cannot be read: ${error instanceof Error ? error.message : error}`;
  }
  const [name, ...mentioned] = found;
  const mentions = mentionsOf(item);
  if (name !== item.name || mentioned.length !== mentions.length)
    return `${path} holds ${JSON.stringify(found)}`;
  made.set(path, new Set(mentioned));
  for (const [index, each] of mentions.entries()) {
    const wrong = contentsWrong(world, mentioned[index] ?? "", each, made);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

/** The name that a result holds, and the paths that it mentions. */
function read(place: string, item: Item): readonly [string, ...string[]] {
  if (item.form === "file" || !lstatSync(place).isDirectory()) {
    const [name = "", ...mentioned] = readFileSync(place, "utf8").trimEnd().split("\n");
    return [name, ...mentioned];
  }
  const links = readdirSync(place)
    .filter((entry) => entry.startsWith("link"))
    .sort();
  return [
    readFileSync(join(place, "name"), "utf8").trimEnd(),
    ...links.map((link) => readlinkSync(join(place, link))),
  ];
}

async function referencesWrong(
  world: World,
  made: ReadonlyMap<string, Set<string>>,
): Promise<string | undefined> {
  for (const [path, mentioned] of made) {
    const { code, stdout, stderr } = await onStore(world, "nix-store", "-q", "--references", path);
    if (code !== 0) return `${path} is not valid: ${stderr.trim()}`;
    const references = stdout.split("\n").filter((line) => line !== "");
    if (references.toSorted().join() !== [...mentioned].toSorted().join())
      return `${path} mentions ${[...mentioned].join(", ")}, and its references are ${references.join(", ") || "none"}`;
  }
  return undefined;
}

/** Whether a sandbox whose build makes one of these paths is not settled yet. */
function isPending({ lab }: World, paths: readonly string[]): boolean {
  const roots = lab.daemon.hostPath("/nix/var/nix/gcroots/nix-broker");
  return readdirSync(roots)
    .filter((name) => name.endsWith(".json"))
    .map((name) => readOrNothing(join(roots, name)))
    .some((record) => paths.some((path) => record.includes(`"${path}"`)));
}
