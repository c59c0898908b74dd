/**
 * What Nix's own functional test of its recursive-nix feature does, here with clients of every version in outer
 * builds of every version: query, build, add, be refused, link to what was built, and keep it.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { field, innerDerivation, outer, writeFile } from "./scripts.ts";

/** An input with a dependency of its own, for the closure of the outer build. */
const dependency = innerDerivation("dependency", "echo dependency > $out");
const input = innerDerivation("input", "echo $dependency > $out", { dependency });
const stranger = innerDerivation("stranger", "echo a secret > $out");

const innerExpression = `
let input = builtins.storePath (builtins.getEnv "input"); in
${innerDerivation(
  "inner",
  'mkdir $out; { cat $src; echo with; cat "$input"; } > $out/text; echo $src > $out/source',
  {
    src: "./source",
    input: "input",
  },
)}`;

const script = `
# Names in the output that shall not count as references.
broken() { sed 's|/store/.|&_|'; }
refuses() { if "$@" > refused 2>&1; then echo "succeeded: $*"; return 1; fi; cat refused >> refusals; }
mkdir $out

# In the closure of the inputs: known, readable, and nothing to build.
nix-store -q --hash $input > /dev/null
nix-store -r $input > /dev/null
nix-store -r $dependency > /dev/null
[ "$(nix-store -qR $input | sort)" = "$(printf '%s\\n' $input $dependency | sort)" ]

# Not in the closure, though it is in the store.
refuses nix-store -q --hash $stranger
refuses nix-store -r $stranger
refuses nix-store -r $strangerDerivation
refuses nix-build --no-out-link $strangerDerivation
refuses cat $stranger

# A file of one's own.
echo added > file
added=$(nix-store --add ./file)
[ "$(cat $added)" = added ]
nix path-info --all | broken > $out/view

# A derivation of one's own.
${writeFile("inner.nix", innerExpression)}
echo a source > source
inner=$(nix-build --no-out-link inner.nix)
[ "$(cat $inner/text)" = "a source
with
$dependency" ]
source=$(cat $inner/source)
[ "$(cat $source)" = "a source" ]
nix path-info --all | broken > $out/later-view

ln -s $inner/text $out/inner
echo "$added" > $out/added
printf '%s\\n' added=$added inner=$inner source=$source | broken > $out/paths
cat refusals
`;

describe.each(ways)("recursive Nix as Nix's own test has it [daemon %s, by %s]", (version, way) => {
  const hooks = way === "hooks";
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { hooks });
  });
  afterAll(() => made?.stop());

  // By the socket there is nothing that would be another for other clients: the daemon's own, and the newest.
  const clients = hooks ? lab.versions : [...new Set([version, ...lab.versions.slice(-1)])];

  test.each(clients)("G2, G5, G6: a client of %s in an outer build", async (client) => {
    const { daemon } = made;
    const strangerOut = (await daemon.build(stranger)).out;
    const { out } = await daemon.build(
      outer(script, {
        name: `outer-${client}`,
        client,
        attributes: {
          input,
          // Of these, only the name is known inside.
          dependency: `builtins.unsafeDiscardStringContext "\${${dependency}}"`,
          stranger: `builtins.unsafeDiscardStringContext "\${${stranger}}"`,
          strangerDerivation: `builtins.unsafeDiscardStringContext (${stranger}).drvPath`,
        },
      }),
    );
    const read = (name: string) =>
      readFileSync(`${daemon.root}${out.slice("/nix".length)}/${name}`, "utf8").replaceAll(
        /(\/store\/.)_/g,
        "$1",
      );
    const lines = (name: string) => read(name).trim().split("\n").sort();
    const closure = async (...paths: string[]) => {
      const { stdout } = await daemon.run(["nix-store", "-qR", ...paths]);
      return stdout.trim().split("\n").sort();
    };
    const inputs = await closure((await daemon.build(input)).out);
    const paths = read("paths");
    const added = field(paths, "added");
    const inner = field(paths, "inner");
    const source = field(paths, "source");

    expect(lines("view")).toEqual([...inputs, added].sort());
    const later = lines("later-view");
    const derivation = later.filter((path) => path.endsWith("-inner.drv"));
    expect(derivation).toHaveLength(1);
    expect(later).toEqual([...inputs, added, source, inner, ...derivation].sort());

    const result = await closure(out);
    // Of the inputs, the inner output mentions one.
    const mentioned = inputs.filter((path) => path.endsWith("-dependency"));
    expect(result).toEqual([out, added, inner, source, ...mentioned].sort());
    expect(result).not.toContain(strangerOut);
  });
});
