/** A real build in three levels: outer asks for middle, which has a sandbox of its own and asks for leaf. */
import { innerDerivation, outer, writeFile } from "../recursive/scripts.ts";

/** Lets inner builds ask for a sandbox of their own. */
export const serviceConfig = `
[hooks]
profile = "nesting"
[profiles.nesting]
extends = "build"
required_system_features = ["nix-broker"]
`;

/** A folder that all builds of the lab see; the leaf may wait for a file in it. */
export const SHARED = "/tmp/shared";

/** @returns the expression of the outer build. With `waits` the leaf ends once there is a file `go` in `SHARED`. */
export function nestedBuild({ waits = false, name = "outer" } = {}): string {
  const wait = waits ? `until [ -e ${SHARED}/go ]; do sleep 0.1; done; ` : "";
  const leaf = innerDerivation("leaf", `${wait}cat $src > $out`, { src: "./source" });
  const middle = innerDerivation(
    "middle",
    `export HOME="$PWD/home" PAGER=cat NIX_PAGER=cat
mkdir -p "$HOME"
${writeFile("leaf.nix", leaf)}
echo of the leaf > source
leaf=$(nix-build --no-out-link leaf.nix)
mkdir $out; ln -s $leaf $out/leaf`,
    { requiredSystemFeatures: '[ "nix-broker" ]' },
  );
  return outer(
    `${writeFile("middle.nix", middle)}
${writeFile("broken.nix", innerDerivation("broken", "exit 3"))}
nix-store --gc && exit 1
nix-build --no-out-link broken.nix && exit 1
echo text > notes
notes=$(nix-store --add ./notes)
middle=$(nix-build --no-out-link middle.nix)
mkdir $out; ln -s $middle $out/middle; ln -s $notes $out/notes`,
    { name },
  );
}
