/** Command lines that build on a system that has no nixpkgs: builders call the system's own programs. */

interface OuterOptions {
  /** Whether the build asks for nix-broker. */
  readonly feature?: boolean;
}

const builder = [
  "env",
  "NIX_REMOTE=daemon",
  "nix-build",
  "--no-out-link",
  ...["--option", "substituters", ""],
  ...["--option", "extra-sandbox-paths", "/usr /lib /lib64"],
];

function outer(name: string, feature: boolean, script: string): string {
  return `derivation {
  name = "outer-${name}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  requiredSystemFeatures = [ ${feature ? '"nix-broker"' : ""} ];
  PATH = "/usr/bin:/bin";
  NIX_REMOTE = "daemon";
  args = [ "-e" "-c" ''export HOME=$PWD/home; mkdir $HOME
${script}'' ];
}`;
}

/** Inside of a shell's single quotes; `script` has none. */
function inner(name: string, script: string): string {
  return `nix-build --no-out-link -E 'derivation { name = "inner-${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "${script}" ]; }'`;
}

/** A build that builds inside, if it may; its output names what it built. */
export function outerBuild(name: string, { feature = true }: OuterOptions = {}): string[] {
  const script = feature ? `${inner(name, "echo inside > $out")} > $out` : "echo plain > $out";
  return [...builder, "-E", outer(name, feature, script)];
}

/**
 * A build that builds one thing inside, waits for a file, and builds two more. It says so after each.
 *
 * @param file on the system, in a folder that is shown to the build
 */
export function slowInnerBuilds(file: string): string[] {
  const folder = file.slice(0, file.lastIndexOf("/"));
  const step = (number: number): string =>
    `${inner(String(number), `echo ${number} > $out`)} > $out; echo inner-${number} is built`;
  const script = `${step(1)}; until [ -e /shown/${file.slice(folder.length + 1)} ]; do sleep 0.1; done; ${step(2)}; ${step(3)}`;
  const paths = `/usr /lib /lib64 /shown=${folder}`;
  return [...builder, "--option", "extra-sandbox-paths", paths, "-E", outer("slow", true, script)];
}
