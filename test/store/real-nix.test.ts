/** What src/store says against what Nix itself prints, for every version of the lab. */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { describeEachVersion } from "../../lab/fixture.ts";
import { type Daemon, lab, type NixVersion, nixString, sandboxScript } from "../../lab/lab.ts";
import { encodeBase32 } from "../../src/store/base32.ts";
import {
  type ContentAddress,
  contentAddressPath,
  parseContentAddress,
  printContentAddress,
} from "../../src/store/content-address.ts";
import {
  fixedOutputAddress,
  outputKind,
  outputPathName,
  parseDerivation,
} from "../../src/store/derivation.ts";
import { type HashAlgorithm, printHash } from "../../src/store/hash.ts";
import { NarWalker } from "../../src/store/nar-walker.ts";
import { ReferenceScanner } from "../../src/store/reference-scanner.ts";
import { isStorePath, storePathHash, storePathName } from "../../src/store/store-path.ts";
import { derivationPath, readDerivationText, unparseDerivation, withAttributes } from "./derivation-text.ts";
import { type NarNode, writeNar } from "./nar.ts";

const store = "/nix/store";
const algorithms = ["md5", "sha1", "sha256", "sha512"] as const satisfies HashAlgorithm[];
const hex = createHash("sha256").update("hi\n").digest("hex");

/** Experimental features, and the minor version of Nix 2 that each is there from. */
const features: readonly (readonly [string, number])[] = [
  ["nix-command ca-derivations", 4],
  ["impure-derivations", 8],
  ["dynamic-derivations", 16],
  ["git-hashing", 19],
  ["blake3-hashes", 30],
];

/** The 26 of 2.26.3. */
function minorOf(version: NixVersion): number {
  return Number(lab.fullVersion(version).split(".")[1]);
}

/** Runs a shell script beside the daemon; gives its lines, and fails with what it said. */
async function lines(daemon: Daemon, script: string, ...args: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await daemon.run(["bash", "-euc", script, "script", ...args]);
  expect(code, stderr).toBe(0);
  return stdout.split("\n").filter((line) => line !== "");
}

/** Puts a file where commands beside the daemon find it; gives its path there. */
function put(daemon: Daemon, path: string, contents: string | Buffer): string {
  mkdirSync(dirname(daemon.hostPath(path)), { recursive: true });
  writeFileSync(daemon.hostPath(path), contents);
  return path;
}

function hashed(algorithm: HashAlgorithm, contents: string | Buffer) {
  return { algorithm, digest: createHash(algorithm).update(contents).digest() };
}

/** The .drv file of an expression, and its path. */
async function instantiate(daemon: Daemon, expression: string): Promise<{ path: string; text: Buffer }> {
  const file = put(daemon, "/tmp/expression/default.nix", expression);
  const [path] = await lines(daemon, 'nix-instantiate "$1"', file);
  return { path: path!, text: readFileSync(daemon.hostPath(path!)) };
}

describeEachVersion(
  "the store layer and real Nix",
  (version, daemon) => {
    const minor = minorOf(version);
    const withFlakes = minor >= 4;

    describe("hashes", () => {
      test.each(algorithms)("by %s are printed the same", async (algorithm) => {
        const file = put(daemon(), "/tmp/hashed", `some text for ${algorithm}`);
        const hash = hashed(algorithm, readFileSync(daemon().hostPath(file)));
        const script = `
          nix-hash --flat --type "$1" "$2"
          nix-hash --flat --type "$1" --base32 "$2"
          nix-hash --to-base32 --type "$1" "$3"
          ${withFlakes ? "nix hash" : "nix"} to-base64 --type "$1" "$3"
          ${withFlakes ? "nix hash" : "nix"} to-sri --type "$1" "$3"`;
        expect(await lines(daemon(), script, algorithm, file, hash.digest.toString("hex"))).toEqual([
          printHash(hash, "base16", false),
          printHash(hash, "base32", false),
          encodeBase32(hash.digest),
          printHash(hash, "base64", false),
          printHash(hash, "sri", true),
        ]);
      });

      if (minor >= 30)
        test("by blake3 are printed the same", async () => {
          const hash = { algorithm: "blake3", digest: Buffer.from(hex, "hex") } as const;
          const script = 'nix hash to-sri --type blake3 "$1"; nix hash to-base32 --type blake3 "$1"';
          expect(await lines(daemon(), script, hex)).toEqual([
            printHash(hash, "sri", true),
            printHash(hash, "base32", false),
          ]);
        });
    });

    describe("store paths", () => {
      test("of added files, by every method and algorithm, are the same", async () => {
        const contents = Buffer.from("contents of a file\n");
        const file = put(daemon(), "/tmp/added/file", contents);
        const nar = writeNar({ type: "regular", contents });
        const script = `nix-store --add "$1"
          for type in ${algorithms.join(" ")}; do
            nix-store --add-fixed $type "$1"
            nix-store --add-fixed --recursive $type "$1"
          done`;
        const expected: ContentAddress[] = [
          { method: "nar", hash: hashed("sha256", nar) },
          ...algorithms.flatMap((algorithm) => [
            { method: "flat" as const, hash: hashed(algorithm, contents) },
            { method: "nar" as const, hash: hashed(algorithm, nar) },
          ]),
        ];
        const paths = await lines(daemon(), script, file);
        expect(paths).toEqual(expected.map((address) => contentAddressPath(store, "file", address, [])));
        expect(paths.every((path) => isStorePath(path, store))).toBe(true);
      });

      test("of texts with references are the same", async () => {
        const expression = `let
            a = builtins.toFile "a" "x";
            b = builtins.toFile "b" "y";
          in [ a b (builtins.toFile "text" "\${b} \${a} \${b}") ]`;
        const [list] = await lines(daemon(), 'nix-instantiate --eval --strict -E "$1"', expression);
        const [a, b, text] = JSON.parse(list!.replaceAll(" ", ",").replace("[,", "[").replace(",]", "]"));
        const path = (name: string, contents: string, references: string[]) =>
          contentAddressPath(store, name, { method: "text", hash: hashed("sha256", contents) }, references);
        expect([a, b]).toEqual([path("a", "x", []), path("b", "y", [])]);
        expect(text).toBe(path("text", `${b} ${a} ${b}`, [a, b]));
      });

      test.each(["a", "-x", "?=+_-.", "x".repeat(211)])("may have the name %j", async (name) => {
        put(daemon(), `/tmp/named/${name}`, name);
        const [path] = await lines(daemon(), 'cd /tmp/named; nix-store --add "./$1"', name);
        expect(isStorePath(path!, store)).toBe(true);
        expect(storePathName(path!)).toBe(name);
      });

      test.each(["a b", "a:b", "ä", "x".repeat(212)])("may not have the name %j", async (name) => {
        put(daemon(), `/tmp/named/${name}`, name);
        const { code } = await daemon().run(["nix-store", "--add", `/tmp/named/${name}`]);
        expect(code).not.toBe(0);
        expect(isStorePath(`${store}/${"a".repeat(32)}-${Buffer.from(name).toString("latin1")}`, store)).toBe(
          false,
        );
      });
    });

    describe("derivations", () => {
      const head = 'system = "s"; builder = "/bin/sh";';
      const fixed = (mode: string, algorithm: string, hash: string) =>
        `derivation { name = "f"; ${head} outputHashMode = "${mode}"; outputHashAlgo = "${algorithm}"; outputHash = "${hash}"; }`;
      const digestOf = (algorithm: string) => createHash(algorithm).update("hi\n").digest("hex");

      interface Case {
        readonly what: string;
        readonly expression: string;
        readonly kind: ReturnType<typeof outputKind>;
        readonly since?: number;
      }
      const cases: Case[] = [
        {
          what: "as small as can be",
          expression: `derivation { name = "a"; ${head} }`,
          kind: "input-addressed",
        },
        {
          what: "with odd strings",
          expression: `derivation { name = "odd?=+_.txt"; ${head}
            args = [ "" "\\"" "\\\\" "\\\\n" "a\\nb\\tc\\rd" "ü\u2028" "$x ''" "[(,)]" ];
            "" = "empty"; "a=b\\n" = "c"; __proto__ = "p"; zero = null; yes = true; no = false; float = 1.5; }`,
          kind: "input-addressed",
        },
        {
          what: "with inputs and several outputs",
          expression: `let
              a = derivation { name = "a"; ${head} outputs = [ "out" "dev" "Zed" ]; };
              b = derivation { name = "b"; ${head} };
            in derivation { name = "c"; ${head} outputs = [ "out" "man" "doc" ];
              args = [ a.dev b a a.Zed ./default.nix (builtins.toFile "z" "z") (builtins.toFile "a" "z") ]; }`,
          kind: "input-addressed",
        },
        {
          what: "that wants a derivation with all its outputs",
          expression: `let a = derivation { name = "a"; ${head} outputs = [ "out" "dev" ]; };
            in derivation { name = "c"; ${head} graph = a.drvPath; }`,
          kind: "input-addressed",
        },
        {
          what: "with structured attributes",
          expression: `derivation { name = "s"; ${head} __structuredAttrs = true; outputs = [ "out" "dev" ];
            requiredSystemFeatures = [ "kvm" "nix-broker" ]; __noChroot = true; url = "a\\"\\\\\\n\\tü";
            outputChecks = { list = [ 1 2.5 true null { } [ ] ]; __proto__ = "p"; }; }`,
          kind: "input-addressed",
        },
        {
          what: "of ten thousand variables",
          expression: `derivation ({ name = "many"; ${head} } // builtins.listToAttrs
            (builtins.genList (i: { name = "v\${toString i}"; value = "\\n\${toString i}"; }) 10000))`,
          kind: "input-addressed",
        },
        ...algorithms.flatMap((algorithm): Case[] =>
          ["flat", "recursive"].map((mode) => ({
            what: `fixed, ${mode}, by ${algorithm}`,
            expression: fixed(mode, algorithm, digestOf(algorithm)),
            kind: "fixed",
          })),
        ),
        {
          what: "fixed, by a git hash",
          expression: fixed("git", "sha1", digestOf("sha1")),
          kind: "fixed",
          since: 26,
        },
        { what: "fixed, as a text", expression: fixed("text", "sha256", hex), kind: "fixed", since: 26 },
        {
          what: "fixed, by blake3",
          expression: fixed("recursive", "blake3", hex),
          kind: "fixed",
          since: 34,
        },
        {
          what: "floating",
          expression: `derivation { name = "ca"; ${head} __contentAddressed = true; outputs = [ "out" "dev" ];
            outputHashMode = "recursive"; outputHashAlgo = "sha256"; }`,
          kind: "floating",
          since: 8,
        },
        {
          what: "floating, for another derivation",
          expression: `derivation { name = "p.drv"; ${head} __contentAddressed = true;
            outputHashMode = "text"; outputHashAlgo = "sha256"; }`,
          kind: "floating",
          since: 26,
        },
        {
          what: "deferred",
          expression: `derivation { name = "deferred"; ${head} args = [ (derivation { name = "ca"; ${head}
            __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }) ]; }`,
          kind: "deferred",
          since: 8,
        },
        {
          what: "impure",
          expression: `derivation { name = "impure"; ${head} __impure = true;
            outputHashMode = "recursive"; outputHashAlgo = "sha256"; }`,
          kind: "impure",
          since: 8,
        },
      ];
      const known = cases.filter(({ since = 3 }) => since <= minor);

      test.each(known)("$what are read, written and named the same", async ({ expression, kind }) => {
        const { path, text } = await instantiate(daemon(), expression);
        const derivation = readDerivationText(text);
        expect(unparseDerivation(derivation).equals(text)).toBe(true);
        expect(parseDerivation(text)).toEqual(withAttributes(derivation));
        const name = storePathName(path).replace(/\.drv$/, "");
        expect(derivationPath(store, name, derivation)).toBe(path);
        for (const [outputName, output] of derivation.outputs) {
          expect(outputKind(output)).toBe(kind);
          const address = fixedOutputAddress(output);
          if (address !== undefined)
            expect(contentAddressPath(store, outputPathName(name, outputName), address, [])).toBe(
              output.path,
            );
        }
        const references = await lines(daemon(), 'nix-store -q --references "$1"', path);
        // A derivation that is wanted with all its outputs is a source, too.
        const inputs = new Set([...derivation.inputSrcs, ...derivation.inputDrvs.keys()]);
        expect(inputs).toEqual(new Set(references));
      });

      test("have the parts that Nix shows", async () => {
        const { path, text } = await instantiate(daemon(), cases[1]!.expression);
        const { args, env } = readDerivationText(text);
        const { builder, system } = parseDerivation(text);
        const command = minor < 17 ? "nix show-derivation" : "nix derivation show";
        const shown = JSON.parse((await lines(daemon(), `${command} "$1"`, path)).join("\n"));
        const [first] = Object.values(minor >= 34 ? shown.derivations : shown) as Record<string, unknown>[];
        const unicode = (bytes: string) => Buffer.from(bytes, "latin1").toString();
        expect(args.map(unicode)).toEqual(first!.args);
        expect(new Map([...env].map(([key, value]) => [unicode(key), unicode(value)]))).toEqual(
          new Map(Object.entries(first!.env as object)),
        );
        expect([builder, system]).toEqual([first!.builder, "s"]);
      });

      test("with structured attributes give them", async () => {
        const { text } = await instantiate(daemon(), cases[4]!.expression);
        const { attributes } = parseDerivation(text);
        expect(attributes.list("requiredSystemFeatures")).toEqual(["kvm", "nix-broker"]);
        expect(attributes.flag("__noChroot")).toBe(true);
        expect(attributes.text("url")).toBe(Buffer.from('a"\\\n\tü').toString("latin1"));
        expect(attributes.structured("outputChecks")).toEqual(
          new Map<string, unknown>([
            ["__proto__", "p"],
            ["list", [1, 2.5, true, null, new Map(), []]],
          ]),
        );
      });

      if (minor >= 26)
        test("that are dynamic are refused as such", async () => {
          const { text } = await instantiate(
            daemon(),
            `let p = derivation { name = "p.drv"; ${head} __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256"; };
           in derivation { name = "x"; system = "s"; builder = builtins.outputOf p.outPath "out"; }`,
          );
          expect(() => parseDerivation(text)).toThrow("dynamic derivations (the form DrvWithVersion)");
        });
    });

    describe("NARs", () => {
      test("that Nix writes are walked over to their end", async () => {
        const script = `rm -rf /tmp/tree; mkdir -p /tmp/tree/empty /tmp/tree/${"d/".repeat(50)}; cd /tmp/tree
          echo hello > file; echo run > run; chmod +x run; : > nothing; ln -s ../x link; ln -s "${"t".repeat(4095)}" long
          touch A B a b "with blank" $'\\xff' "${"n".repeat(255)}"; head -c 100003 /dev/zero > big
          nix-store --dump /tmp/tree`;
        const { stdoutBytes } = await daemon().run(["bash", "-euc", script]);
        const slices: Buffer[] = [];
        const walker = new NarWalker((slice) => slices.push(slice));
        expect(walker.push(Buffer.concat([stdoutBytes, Buffer.from("more")]))).toBe(stdoutBytes.length);
        expect(walker).toMatchObject({ done: true, length: stdoutBytes.length, rootType: "directory" });
        const contents = Buffer.concat([Buffer.alloc(100_003), Buffer.from("hello\nrun\n")]);
        expect(Buffer.concat(slices).equals(contents)).toBe(true);
      });

      const name = fc.stringMatching(/^[a-zA-Z_ ]{1,8}$/);
      const tree = fc.letrec<{ node: NarNode }>((tie) => ({
        node: fc.oneof(
          { depthSize: "small" },
          fc.record({
            type: fc.constant("regular" as const),
            contents: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
            executable: fc.boolean(),
          }),
          fc.record({ type: fc.constant("symlink" as const), target: name }),
          fc
            .uniqueArray(fc.tuple(name, tie("node")), { maxLength: 4, selector: ([key]) => key })
            .map((entries) => ({
              type: "directory" as const,
              entries: entries.sort(([x], [y]) => (x < y ? -1 : 1)),
            })),
        ),
      })).node;

      test("that the walker accepts are unpacked and packed again by Nix with the same bytes", async () => {
        for (const root of fc.sample(tree, 10)) {
          const nar = writeNar(root);
          const walker = new NarWalker();
          expect(walker.push(nar)).toBe(nar.length);
          expect(walker.done).toBe(true);
          put(daemon(), "/tmp/nar", nar);
          const script =
            "rm -rf /tmp/out; nix-store --restore /tmp/out < /tmp/nar; nix-store --dump /tmp/out";
          const { stdoutBytes } = await daemon().run(["bash", "-euc", script]);
          expect(stdoutBytes.equals(nar)).toBe(true);
        }
      });
    });

    describe("an output", () => {
      let out: string;
      let inputs: string[];
      let nar: Buffer;

      beforeAll(async () => {
        const names = ["inFile", "inLink", "inName", "inRun", "nowhere"];
        const attributes = Object.fromEntries(
          names.map((key) => [key, `builtins.toFile ${nixString(key)} "x"`]),
        );
        const script = `mkdir $out; echo "text $inFile." > $out/file; ln -s $inLink/x $out/link
          : > $out/$(basename $inName); echo aaaa\${inRun:11:32}zzzz$out > $out/run`;
        ({ out } = await daemon().build(sandboxScript(script, { name: "refers", attributes })));
        const [path] = await lines(daemon(), 'nix-store -qd "$1"', out);
        inputs = parseDerivation(readFileSync(daemon().hostPath(path!))).inputSrcs;
        ({ stdoutBytes: nar } = await daemon().run(["nix-store", "--dump", out]));
      });

      test.each([65_536, 61, 1])("has the references that Nix finds, in chunks of %i bytes", async (size) => {
        const candidates = [...inputs, out];
        const scanner = new ReferenceScanner(candidates.map(storePathHash));
        for (let at = 0; at < nar.length; at += size) scanner.push(nar.subarray(at, at + size));
        const found = candidates.filter((path) => scanner.found.has(storePathHash(path)));
        const references = await lines(daemon(), 'nix-store -q --references "$1"', out);
        expect(references).toHaveLength(5);
        expect(found.sort()).toEqual(references.sort());
      });

      test("has the length that Nix registers", async () => {
        const walker = new NarWalker();
        walker.push(nar);
        expect(await lines(daemon(), 'nix-store -q --size "$1"', out)).toEqual([String(walker.length)]);
      });

      if (withFlakes)
        test("made content-addressed has the path that its address gives", async () => {
          const script =
            'nix store make-content-addressed --json "$1" || nix store make-content-addressable --json "$1"';
          const { rewrites } = JSON.parse((await lines(daemon(), script, out)).join(""));
          const path = rewrites[out] as string;
          const format = minor >= 34 ? "--json --json-format 1" : "--json";
          const info = JSON.parse((await lines(daemon(), `nix path-info ${format} "$1"`, path)).join(""));
          const { ca, references } = (Array.isArray(info) ? info[0] : info[path]) as {
            ca: string;
            references: string[];
          };
          expect(references).toContain(path);
          expect(references.length).toBeGreaterThan(1);
          const others = references.filter((reference) => reference !== path);
          const address = parseContentAddress(ca);
          expect(printContentAddress(address)).toBe(ca);
          expect(contentAddressPath(store, basename(path).slice(33), address, others, true)).toBe(path);
        });
    });
  },
  (version) => {
    const known = features.filter(([, since]) => since <= minorOf(version)).map(([name]) => name);
    return { config: known.length === 0 ? "" : `experimental-features = ${known.join(" ")}` };
  },
);
