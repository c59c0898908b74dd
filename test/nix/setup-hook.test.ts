/** The setup hook under nixpkgs' two ways to hand attributes to a builder; the lab's stand-in has the first alone. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { projectRoot } from "./fixture.ts";

/** The command line that the hook makes of these attributes, a word a line. */
function selected(attributes: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), "nix-broker-hook-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const script = `${attributes}
    nixBrokerArguments='{ a = 1; b = 2; }' nixBrokerAttribute=package
    . ${join(projectRoot, "lib/setup-hook.sh")}
    nixBrokerSelect; printf '%s\\n' "\${nixBrokerCommandLine[@]}"`;
  const text = execFileSync("bash", ["-euc", script], {
    env: { ...process.env, NIX_BUILD_TOP: folder },
    encoding: "utf8",
  });
  return text.trim().replaceAll(folder, "TOP").split("\n");
}

function argument(name: string): string[] {
  return ["--arg", name, `(import TOP/.nix-broker/arguments.nix).${name}`];
}

test.each([
  ["variables", 'outputs="out doc" nixBrokerArgumentNames="a b"'],
  ["__structuredAttrs", "declare -A outputs=([out]=/1 [doc]=/2); nixBrokerArgumentNames=(a b)"],
])("all arguments and outputs are selected, given as %s", (_how, attributes) => {
  const words = selected(attributes);
  expect(words.slice(0, 7)).toEqual([".", ...argument("a"), ...argument("b")]);
  expect(words.slice(7).sort()).toEqual(["-A", "-A", "package.doc", "package.out"]);
});

test.each([
  ["variables", 'outputs=out nixBrokerArgumentNames="a"'],
  ["__structuredAttrs", "declare -A outputs=([out]=/1); nixBrokerArgumentNames=(a)"],
])("a single output is the attribute itself, given as %s", (_how, attributes) => {
  expect(selected(attributes).slice(4)).toEqual(["-A", "package"]);
});
