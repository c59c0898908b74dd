/**
 * Derivations that come as NARs, as clients send them with `--eval-store` and `nix copy --derivation`: judged like
 * those that come as texts, and refused unless the text is all that the NAR says.
 */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { nixString, nixSystem } from "../../lab/expression.ts";
import type { RawClient } from "../../lab/raw-client.ts";
import { END_OF_FRAMES, frameHeader } from "../../src/protocol/frames.ts";
import { addContents, items, type NarInfo } from "../attack/contents.ts";
import { type Made, makeDerivation } from "../attack/derivations.ts";
import { describeAttack } from "../attack/suite.ts";
import { type NarNode, writeNar } from "../store/nar.ts";

const TEXT_BYTES = 100_000;

/** What a client says of a derivation that it sends as a NAR. */
function infoOf(made: Made, nar: Buffer): NarInfo {
  return {
    path: made.path,
    deriver: "",
    narHash: createHash("sha256").update(nar).digest("hex"),
    references: [...made.references],
    registrationTime: 0,
    narSize: nar.length,
    ultimate: false,
    signatures: [],
    contentAddress: `text:sha256:${createHash("sha256").update(made.text).digest("hex")}`,
  };
}

/** Old versions ask for a piece at a time, and for no longer ones. */
function pieces(nar: Buffer): Buffer[] {
  const length = 32 * 1024;
  return Array.from({ length: Math.ceil(nar.length / length) }, (_, i) =>
    nar.subarray(i * length, (i + 1) * length),
  );
}

type Change = (made: Made) => { node?: NarNode; info?: Partial<NarInfo> };

describeAttack(
  "derivations as NARs",
  ({ version, minor, daemon, broker, bare, brokered }) => {
    const ways = minor >= 32 ? (["alone", "among others"] as const) : (["alone"] as const);
    let count = 0;
    const someDerivation = (more: Partial<Parameters<typeof makeDerivation>[0]> = {}): Made =>
      makeDerivation({ name: `nar-${count++}`, script: "echo made > $out", ...more });

    async function send(
      client: RawClient,
      way: (typeof ways)[number],
      made: Made,
      change: Change,
    ): Promise<string | undefined> {
      const { node = { type: "regular", contents: made.text }, info: told } = change(made);
      const nar = writeNar(node);
      const info = { ...infoOf(made, nar), ...told };
      const flags = { repair: false, dontCheckSigs: false };
      const { error } =
        way === "alone"
          ? await client.ask("AddToStoreNar", { ...info, ...flags }, pieces(nar))
          : await client.ask("AddMultipleToStore", flags, [items(client, [{ info, nar }])]);
      return error;
    }

    test.each(ways)("%s: one is accepted, and what it is made of may be built", async (way) => {
      const client = await brokered();
      const { path: source } = await addContents(
        client,
        "nar",
        `source-${way.length}`,
        Buffer.from("source"),
      );
      const input = someDerivation();
      const made = someDerivation({
        script: `read x < ${input.out}; read y < ${source}; echo $x $y > $out`,
        inputs: [input],
        inputSrcs: [source],
      });
      for (const one of [input, made]) expect(await send(client, way, one, () => ({}))).toBeUndefined();
      expect(await client.must("QueryPathInfo", { path: made.path })).toMatchObject({
        references: [...made.references].sort(),
        contentAddress: expect.stringMatching(/^text:sha256:/),
        deriver: "",
      });
      expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
      expect((await client.nar(made.out)).toString("latin1")).toContain("made source");
    });

    test.each(ways)("G4: %s: one that may not run is accepted, and not built", async (way) => {
      const client = await brokered();
      const made = someDerivation({ env: { __noChroot: "1" } });
      expect(await send(client, way, made, () => ({}))).toBeUndefined();
      expect((await client.build(`${made.path}!out`)).error).toContain("it sets __noChroot");
    });

    const otherText = Buffer.from('Derive([],[],[],"x","x",[],[])');
    test.each<[what: string, change: Change, told: RegExp]>([
      [
        "a text that does not make its path",
        (made) => ({ node: { type: "regular", contents: Buffer.concat([made.text, Buffer.from(" ")]) } }),
        /not allowed here|does not make the path/,
      ],
      [
        "another derivation's text",
        () => ({ node: { type: "regular", contents: someDerivation({ script: "echo other > $out" }).text } }),
        /its text does not make the path '\S+\.drv'/,
      ],
      [
        "what is no derivation",
        () => ({ node: { type: "regular", contents: otherText } }),
        /is not allowed here/,
      ],
      [
        "an executable file",
        (made) => ({ node: { type: "regular", contents: made.text, executable: true } }),
        /regular file that is not executable/,
      ],
      ["a symlink", () => ({ node: { type: "symlink", target: "/etc/passwd" } }), /regular file/],
      [
        "a folder",
        (made) => ({
          node: { type: "directory", entries: [["x.drv", { type: "regular", contents: made.text }]] },
        }),
        /regular file/,
      ],
      [
        "more bytes than are judged",
        () => ({ node: { type: "regular", contents: Buffer.alloc(TEXT_BYTES + 1, "x") } }),
        /longer than 100000 bytes \(limits\.text_bytes\)/,
      ],
      ["another size than it has", () => ({ info: { narSize: 8 } }), /the NAR is not as long as the 8 bytes/],
      ["no content address", () => ({ info: { contentAddress: "" } }), /only as texts/],
      [
        "the content address of a NAR",
        () => ({ info: { contentAddress: `fixed:r:sha256:${"0".repeat(64)}` } }),
        /only as texts/,
      ],
    ])("G8: refused, and the connection goes on: %s", async (_, change, told) => {
      for (const way of ways) {
        const client = await brokered();
        const made = someDerivation();
        expect(await send(client, way, made, change), way).toMatch(told);
        expect(await client.must("IsValidPath", { path: made.path })).toBe(false);
        expect(await (await bare()).must("IsValidPath", { path: made.path })).toBe(false);
        expect(await send(client, way, made, () => ({})), `${way}, then right`).toBeUndefined();
        expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
      }
    });

    test("G1: refused, and the connection goes on: inputs that are outside the view, and references that are no inputs", async () => {
      const stranger = await bare();
      const strangers = await addContents(stranger, "nar", "strangers", Buffer.from("somebody else's"));
      for (const way of ways) {
        const client = await brokered();
        const { path: own } = await addContents(client, "nar", "own", Buffer.from("own"));
        const outside = someDerivation({ inputSrcs: [strangers.path] });
        const nowhere = someDerivation({ inputSrcs: [strangers.path.replace("strangers", "nobodys")] });
        const words = [];
        for (const made of [outside, nowhere])
          words.push((await send(client, way, made, () => ({})))?.replace(/strangers|nobodys/, "x"));
        expect(words[0]).toContain("is not valid");
        expect(words[1]).toBe(words[0]);
        expect(await send(client, way, outside, () => ({ info: { references: [] } }))).toMatch(
          /its input '\S+-strangers' is not among the references/,
        );
        expect(await send(client, way, someDerivation(), () => ({ info: { references: [own] } }))).toMatch(
          /its reference '\S+-own' is not one of its inputs/,
        );
        const made = someDerivation({ inputSrcs: [own] });
        expect(await send(client, way, made, () => ({}))).toBeUndefined();
        expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
      }
    });

    if (minor >= 25)
      test.each<[what: string, after: Buffer, size: number, told: string]>([
        ["bytes after the end of the NAR", Buffer.from("abc"), 0, "there are bytes after the end of the NAR"],
        ["more bytes than are judged", Buffer.alloc(0), TEXT_BYTES, "(limits.text_bytes)"],
      ])(
        "G8: refused in the middle of a piece, and the connection goes on: %s",
        async (_, after, size, told) => {
          const client = await brokered();
          const made = someDerivation();
          const nar = writeNar({
            type: "regular",
            contents: Buffer.concat([made.text, Buffer.alloc(size, 1)]),
          });
          const request = { ...infoOf(made, nar), repair: false, dontCheckSigs: false };
          // In one piece, so that the length of the frame arrives together with what is refused.
          await client.write(
            Buffer.concat([
              client.encode("AddToStoreNar", request),
              frameHeader(nar.length + after.length),
              nar,
              after,
              END_OF_FRAMES,
            ]),
          );
          expect((await client.outcome()).error).toContain(told);
          expect(await send(client, "alone", made, () => ({}))).toBeUndefined();
        },
      );

    if (version !== "2.3") {
      const expression = (name: string) => `derivation {
        name = ${nixString(name)}; system = ${nixString(nixSystem)}; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
        src = builtins.toFile "text" "a text"; dep = derivation {
          name = "${name}-dep"; system = ${nixString(nixSystem)}; builder = "/bin/sh"; args = [ "-c" "echo dep > $out" ]; };
        args = [ "-c" "read x < $src; read y < $dep; echo $x $y > $out; :" ]; }`;
      const run = (...argv: string[]) =>
        daemon().run(argv, {
          user: "alice",
          env: { NIX_REMOTE: `unix://${broker().socket}`, HOME: "/tmp/alice", NIX_CONFIG: CLIENT_SETTINGS },
        });

      test("a client evaluates in a store of its own and builds at the broker", async () => {
        const built = await run(
          ...["nix", "build", "--eval-store", "/tmp/alice/evaluated", "--store", `unix://${broker().socket}`],
          ...["--no-link", "--json", "--impure", "--expr", expression("evaluated-elsewhere")],
        );
        expect(built.code, built.stderr).toBe(0);
        const out = /"out": ?"([^"]+)"/.exec(built.stdout)?.[1] ?? "";
        expect((await daemon().run(["cat", out])).stdout).toBe("a text dep\n");
      });

      test("a client copies a derivation, with those below it", async () => {
        const made = await daemon().run(
          ["nix-instantiate", "--store", "/tmp/alice/copied", "-E", expression("copied")],
          {
            user: "alice",
            env: { HOME: "/tmp/alice", NIX_REMOTE: "" },
          },
        );
        const [path = ""] = /\/nix\/store\/\S+\.drv/.exec(made.stdout) ?? [];
        const copied = await run(
          ...["nix", "copy", "--derivation", "--from", "/tmp/alice/copied"],
          ...["--to", `unix://${broker().socket}`, path],
        );
        expect(copied.code, copied.stderr).toBe(0);
        const built = await run("nix-store", "-r", path);
        expect(built.code, built.stderr).toBe(0);
        expect((await daemon().run(["cat", built.stdout.trim()])).stdout).toBe("a text dep\n");
      });
    }
  },
  { broker: { config: `[limits]\ntext_bytes = ${TEXT_BYTES}\n` } },
);

const CLIENT_SETTINGS = "experimental-features = nix-command flakes\nflake-registry =\n";
