/** The two outer builds of the demo: an honest one, and one that cheats. */
import { nixString, nixSystem } from "../lab/expression.ts";

export interface OuterBuild {
  /** What its builder runs, for display. */
  readonly script: string;
  readonly expression: string;
}

/** The environment that every builder here needs; none of it concerns the broker. */
export interface Surroundings {
  /** Folders for PATH: a Nix client, and the usual tools. */
  readonly path: string;
  /** More environment: without build users a client has to be told to use the daemon. */
  readonly environment: Readonly<Record<string, string>>;
  /** requiredSystemFeatures, if the build opts in to its own sandbox. */
  readonly features: readonly string[];
}

function outerExpression(
  name: string,
  script: string,
  { path, environment, features }: Surroundings,
): string {
  const attributes = {
    name: nixString(name),
    system: nixString(nixSystem),
    builder: nixString("/bin/bash"),
    // Nix kills a builder whose output is closed: the last command must not be one that bash would exec.
    args: `[ "-e" "-c" ${nixString(`${script}\n:\n`)} ]`,
    PATH: nixString(path),
    ...Object.fromEntries(Object.entries(environment).map(([key, value]) => [key, nixString(value)])),
    ...(features.length > 0 && { requiredSystemFeatures: `[ ${features.map(nixString).join(" ")} ]` }),
  };
  const lines = Object.entries(attributes).map(([key, value]) => `${key} = ${value};`);
  return `derivation { ${lines.join("\n")} }`;
}

const innerNix = `derivation {
  name = "inner"; system = "${nixSystem}"; builder = "/bin/sh";
  note = ./note;
  args = [ "-c" "echo inner build: I read $note; { read line < $note; echo \\"$line, and built inside\\"; } > $out; :" ];
}
`;

/** @param visible whether the inner result can be read in the sandbox of the outer build */
export function honestBuild(visible: boolean, surroundings: Surroundings): OuterBuild {
  const script = `export HOME=$PWD
echo "written by the outer build" > note
cat > inner.nix <<'END'
${innerNix}END
inner=$(nix-build --no-out-link inner.nix)
mkdir $out
${visible ? `cat $inner > $out/text     # visible in here, at once\nln -s $inner $out/inner` : `echo $inner > $out/inner`}`;
  return { script, expression: outerExpression("outer", script, surroundings) };
}

/** Something that a build must not get. */
export interface Attempt {
  readonly title: string;
  readonly script: string;
  /** Whether the attempt failed, as it should. Output is both streams of the script. */
  refused(outcome: AttemptOutcome): boolean;
  /** The operations of which the audit must show one as denied, if any is denied. */
  readonly denied?: readonly string[];
  /** What to print about the outcome; by default the error that the client printed. */
  tell?(outcome: AttemptOutcome): string;
}

export interface AttemptOutcome {
  readonly code: number;
  readonly output: string;
}

/** Facts about the machine that a spy might know and want to use. */
export interface Targets {
  /** A store path that is not an input of the build. */
  readonly secret: string;
  /** What the file says. */
  readonly secretText: string;
  /** A store path that does not exist. */
  readonly madeUp: string;
  /** A derivation that reads the secret, as text. */
  readonly stealDerivation: string;
}

/** How many cores the cheat asks the daemon to give an inner build. */
const CORES = 99;

function lastLine({ output }: AttemptOutcome): string {
  const lines = output.trim().split("\n");
  return (lines.findLast((line) => line.includes("error:")) ?? lines.at(-1) ?? "").trim();
}

/** Failed for this reason, and no other: a client that cannot connect fails too. */
function failedWith(words: string) {
  return ({ code, output }: AttemptOutcome): boolean => code !== 0 && output.includes(words);
}

/** In this order; the last one on a bare daemon collects the rest. */
export function attempts({ secret, secretText, madeUp, stealDerivation }: Targets): Attempt[] {
  return [
    {
      title: "ask about a path that exists, but is not one of its inputs",
      script: `nix-store --query --hash ${secret}`,
      refused: failedWith("is not valid"),
      tell: lastLine,
    },
    {
      title: "compare that with the answer about a path that does not exist: they must be the same",
      script: `nix-store --query --hash ${secret} > exists 2>&1; nix-store --query --hash ${madeUp} > not 2>&1
sed s,${secret},PATH,g exists > a; sed s,${madeUp},PATH,g not > b
if [ "$(cat a)" != "$(cat b)" ]; then echo "the answers differ: one is $(tail -n 1 a | cut -c 1-20)…, of the other it says '$(tail -n 1 b)'"; exit 0; fi
cat b; exit 1`,
      refused: failedWith("'PATH' is not valid"),
      tell: lastLine,
    },
    {
      title: "build a derivation that reads this path without declaring it",
      script: `cat > steal.text <<'END'
${stealDerivation}
END
drv=$(nix-instantiate --eval --read-write-mode --expr 'builtins.toFile "steal.drv" (builtins.substring 0 ${stealDerivation.length} (builtins.readFile ./steal.text))' | tr -d '"')
[ -n "$drv" ] && out=$(nix-store --realise "$drv") && cat "$out"`,
      refused: (outcome) =>
        failedWith("is not among the references")(outcome) && !outcome.output.includes(secretText),
      denied: ["AddToStore", "AddTextToStore"],
    },
    {
      title: `change the daemon's settings (cores = ${CORES}) for an inner build`,
      script: `nix-build --no-out-link --cores ${CORES} --expr 'derivation {
  name = "cores"; system = "${nixSystem}"; builder = "/bin/sh"; here = toString ./.;
  args = [ "-c" "echo cores are $NIX_BUILD_CORES; echo > $out; :" ]; }'`,
      refused: ({ output }) => output.includes("cores are") && !output.includes(`cores are ${CORES}`),
      tell: (outcome) => /cores are \d+/.exec(outcome.output)?.[0] ?? lastLine(outcome),
    },
    {
      title: "collect garbage",
      script: "nix-store --gc",
      refused: failedWith("CollectGarbage is not allowed here"),
      denied: ["CollectGarbage"],
    },
  ];
}

export function messageOf(attempt: Attempt, outcome: AttemptOutcome): string {
  return (attempt.tell ?? lastLine)(outcome).replace(/^error: /, "");
}

function runAll(list: readonly Attempt[], folder: string): string {
  return list
    .map(
      ({ script }, i) =>
        `mkdir work${i}; cd work${i}
code=0; ( ${script}
) > ${folder}/${i}.output 2>&1 || code=$?
echo $code > ${folder}/${i}.code; cd ..`,
    )
    .join("\n");
}

/** A build that tries everything and writes the outcome to its output. */
export function cheatingBuild(list: readonly Attempt[], surroundings: Surroundings): string {
  return outerExpression("cheat", `export HOME=$PWD\nmkdir $out\n${runAll(list, "$out")}`, surroundings);
}

/** The same as a script for an ordinary user of the machine, who has the bare daemon. */
export function cheatingScript(list: readonly Attempt[], folder: string): string {
  return `set -e\nmkdir -p ${folder}; cd ${folder}\n${runAll(list, folder)}`;
}
