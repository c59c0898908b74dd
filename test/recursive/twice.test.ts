/**
 * The same outer build twice, the second time on a store that has every inner path already: nothing that it is told
 * and nothing that it makes may differ (G3).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, type NixVersion } from "../../lab/lab.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

const projectRoot = join(import.meta.dirname, "../..");

const serviceConfig = `
[profiles.silent]
extends = "build"
inner_logs = "none"
content_addressed = true
[hooks]
profile = "silent"
`;

const below = innerDerivation("below", "echo a line; echo below > $out");
const tree = innerDerivation(
  "tree",
  "echo another line; mkdir $out $dev; echo $below $src > $out/text; echo > $dev/h",
  {
    below,
    src: "./source",
    outputs: '[ "out" "dev" ]',
  },
);
const failing = innerDerivation("failing", "echo why; exit 3");
const fixed = innerDerivation("fixed", "echo fetching; printf fixed > $out", {
  outputHashAlgo: '"sha256"',
  outputHashMode: '"flat"',
  outputHash: 'builtins.hashString "sha256" "fixed"',
});
const floating = innerDerivation("floating", "echo floating; echo floating > $out", {
  __contentAddressed: "true",
  outputHashMode: '"recursive"',
  outputHashAlgo: '"sha256"',
});
const deferred = innerDerivation("deferred", "echo $floating > $out", { floating });

function script(floats: boolean) {
  return `
mkdir $out $out/told
${process.execPath} ${import.meta.dirname}/recording-pipe.mjs $PWD/socket /nix/var/nix/daemon-socket/socket $out/told &
pipe=$!
until [ -e socket ]; do sleep 0.02; done
# As the broker's own settings, which win over NIX_REMOTE.
mkdir conf
sed "s|^store = .*|store = unix://$PWD/socket|; ${floats ? "s|^experimental-features = .*|& ca-derivations|" : ""}" /etc/nix/nix.conf > conf/nix.conf
export NIX_CONF_DIR=$PWD/conf
say() { echo "\\$ $*"; "$@" < /dev/null 2>&1 || echo "code $?"; }
echo a source > source
${writeFile("tree.nix", tree)}
${writeFile("failing.nix", failing)}
${writeFile("fixed.nix", fixed)}
${writeFile("deferred.nix", deferred)}
{
  say nix-store --add ./source
  say nix-build --dry-run tree.nix
  say nix-store -q --outputs $(nix-instantiate tree.nix)
  say nix-build --no-out-link tree.nix
  say nix-build --no-out-link tree.nix -A dev
  say nix-build --dry-run tree.nix
  say nix build --no-link -f tree.nix
  result=$(nix-build --no-out-link tree.nix)
  for what in references referrers requisites deriver hash size tree graph roots; do say nix-store -q --$what $result; done
  say nix-store --check-validity $result
  say nix-store -r $result
  say nix-store -r $(nix-instantiate tree.nix)
  say nix path-info --json $result
  say nix path-info --all
  say nix-store --print-roots
  say nix-build --no-out-link failing.nix
  say nix build --no-link -f failing.nix
  say nix-build --no-out-link fixed.nix
  ${floats ? "say nix-build --no-out-link deferred.nix\n  say nix build --no-link -f deferred.nix\n  say nix-store -q --outputs $(nix-instantiate deferred.nix)" : ""}
} > $out/said
kill $pipe
wait $pipe`;
}

describe.each(ways)("the same outer build twice [daemon %s, by %s]", (version, way) => {
  const hooks = way === "hooks";
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      ...(version !== "2.3" && { config: "experimental-features = ca-derivations\n" }),
      hooks,
      serviceConfig,
      sandboxPaths: [projectRoot],
    });
  });
  afterAll(() => made?.stop());

  // The daemon's own, and the newest, which asks the most.
  const clients = new Set([version, ...(hooks ? lab.versions.slice(-1) : [])]);

  async function run(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await made.daemon.run(argv);
    expect(code, `${argv.join(" ")}: ${stderr}`).toBe(0);
    return stdout;
  }

  /** Everything in the result: what the clients said, and all that they were told. */
  function recorded(out: string): Record<string, string> {
    const folder = made.daemon.hostPath(out);
    const told = readdirSync(`${folder}/told`).sort();
    const texts = told.map((name) => [name, readFileSync(`${folder}/told/${name}`, "latin1")]);
    return { said: readFileSync(`${folder}/said`, "utf8"), ...Object.fromEntries(texts) };
  }

  async function buildAnew(client: NixVersion): Promise<{ result: Record<string, string>; hash: string }> {
    const floats = version !== "2.3" && client !== "2.3";
    const { out } = await made.daemon.build(outer(script(floats), { name: `twice-${client}`, client }));
    const hash = await run("nix-store", "-q", "--hash", out);
    const result = recorded(out);
    await run("nix-store", "--delete", out);
    return { result, hash };
  }

  test.each([...clients])("G3: a client of %s is told the same, and makes the same", async (client) => {
    // What clients of other versions have built is there in part, too.
    await run("nix-collect-garbage");
    const first = await buildAnew(client);
    expect(Object.keys(first.result).length).toBeGreaterThan(25);
    expect(first.result.said).toMatch(/-tree-dev\n/);
    const before = await run(
      "sh",
      "-c",
      "ls /nix/store | grep -E -- '-(tree|tree-dev|below|fixed)$' | wc -l",
    );
    expect(before).toBe("4\n");
    const second = await buildAnew(client);
    expect(second.result).toEqual(first.result);
    expect(second.hash).toBe(first.hash);
  });
});
