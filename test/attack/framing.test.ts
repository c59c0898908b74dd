/** Bodies that one reader takes for a body and another for requests, or for other items. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type RawClient, STORE_DIR } from "../../lab/raw-client.ts";
import { EndOfStream } from "../../src/protocol/byte-stream.ts";
import { compile } from "../../src/protocol/compile.ts";
import { END_OF_FRAMES, frameHeader } from "../../src/protocol/frames.ts";
import { validPathInfo } from "../../src/protocol/types.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { contentAddressPath, printContentAddress } from "../../src/store/content-address.ts";
import { writeNar } from "../store/nar.ts";
import { addContents, items, type NarInfo, narInfo } from "./contents.ts";
import { describeAttack } from "./suite.ts";

const QUERY_ALL_VALID_PATHS = 23;
const UNKNOWN_METHOD = "fixed:r:rot13";
/** As much as fits a frame whose length is the number of an operation without arguments. */
const frameThatIsAnOperation = Buffer.concat([
  frameHeader(QUERY_ALL_VALID_PATHS),
  Buffer.alloc(QUERY_ALL_VALID_PATHS),
]);
function file(contents: string) {
  return writeNar({ type: "regular", contents: Buffer.from(contents) });
}

describeAttack("framing", ({ version, minor, bare, brokered, broker, hostPath }) => {
  const unknownMethod = (client: RawClient): Promise<void> =>
    client.minor >= 25
      ? client.send("AddToStore", { name: "early", method: UNKNOWN_METHOD, references: [], repair: false })
      : client.send("AddToStore", { name: "early", fixed: true, recursive: true, hashAlgorithm: "rot13" });

  describe("an error before the body is read", () => {
    if (minor >= 25)
      test("the bare daemon takes what follows for requests", async () => {
        const client = await bare();
        const { path } = await client.addText("strangers", "somebody else's");
        await unknownMethod(client);
        await client.write(frameThatIsAnOperation);
        expect((await client.outcome()).error).toContain("rot13");
        expect((await client.outcome()).error).toBeUndefined();
        expect(await client.reply("QueryAllValidPaths")).toContain(path);
      });
    else
      test("the bare daemon of 2.3 dies of it: the rest is not read", async () => {
        const client = await bare();
        await unknownMethod(client);
        await client.write(file("contents"));
        await expect(client.outcome()).rejects.toThrow(EndOfStream);
      });

    test("G8: a request that is denied before its body was read leaves the connection in step", async () => {
      const client = await brokered();
      for (let i = 0; i < 3; i++) {
        await unknownMethod(client);
        await client.write(
          minor >= 25 ? Buffer.concat([frameThatIsAnOperation, END_OF_FRAMES]) : file("contents"),
        );
        const { error } = await client.outcome();
        expect(error).toContain("rot13' is not allowed; these are:");
        expect(await client.must("QueryAllValidPaths", undefined)).toEqual([]);
      }
      const rows = await broker().audit();
      expect(rows.filter((row) => row.op === "AddToStore").map((row) => row.verdict)).not.toContain(
        "forward",
      );
    });

    test("G1: weak and unknown content-address methods never reach upstream", async () => {
      const client = await brokered();
      if (client.minor < 25) {
        for (const hashAlgorithm of ["md5", "sha1", "blake3", ""]) {
          const request = { name: "weak", fixed: true, recursive: true, hashAlgorithm };
          expect((await client.ask("AddToStore", request, [file("x")])).error).toContain("not allowed");
        }
        return;
      }
      for (const method of [
        "fixed:md5",
        "fixed:r:sha1",
        "text:sha512",
        "fixed:git:sha1",
        "fixed:r:",
        "",
        "x",
      ]) {
        const request = { name: "weak", method, references: [], repair: false };
        const { error } = await client.ask("AddToStore", request, [Buffer.alloc(23)]);
        expect(error, method).toContain("not allowed");
      }
    });
  });

  test("G8: contents that are not what was announced are refused at any length, and the connection goes on", async () => {
    const client = await brokered();
    const other = await bare();
    for (const length of [1, 100, 5_000, 200_000]) {
      const name = `announced-${length}`;
      const good = writeNar({ type: "regular", contents: Buffer.alloc(length, 1) });
      const bad = writeNar({ type: "regular", contents: Buffer.alloc(length, 2) });
      const info = narInfo(name, good);
      const wrongs = [
        { told: { ...info, narSize: info.narSize - 8 }, nar: good },
        { told: { ...info, narSize: info.narSize + 8 }, nar: good },
        { told: info, nar: Buffer.concat([good, Buffer.alloc(8)]) },
        { told: info, nar: bad },
      ];
      for (const [i, { told, nar }] of wrongs.entries()) {
        const request = { ...told, repair: false, dontCheckSigs: false };
        // Cut so that the fault is found in the middle of what has arrived.
        const pieces = [nar.subarray(0, 40), nar.subarray(40)];
        const { error } = await client.ask("AddToStoreNar", request, pieces);
        expect(error, `${length} ${i}`).toBeDefined();
        if (client.line.gone || minor < 23) break;
        expect((await client.addText("next", `${length} ${i}`)).error).toBeUndefined();
      }
      expect(await other.must("IsValidPath", { path: info.path })).toBe(false);
      if (minor < 23) return;
    }
  });

  test("G8: an executable file is not the flat file that its content address names", async () => {
    const contents = Buffer.from("a script");
    const digest = createHash("sha256").update(contents).digest();
    const address = { method: "flat", hash: { algorithm: "sha256", digest } } as const;
    const client = await brokered();
    for (const executable of [true, false]) {
      const nar = writeNar({ type: "regular", contents, executable });
      const info = {
        ...narInfo("flat", nar),
        path: contentAddressPath(STORE_DIR, "flat", address, []),
        contentAddress: printContentAddress(address),
      };
      const { error } = await client.ask("AddToStoreNar", { ...info, repair: false, dontCheckSigs: false }, [
        nar,
      ]);
      if (executable) expect(error).toContain("must be a regular file that is not executable");
      else expect(error).toBeUndefined();
    }
  });

  if (minor >= 32)
    describe("items of AddMultipleToStore that end in different places", () => {
      /**
       * The first item is valid already. By its grammar its NAR ends before `first`, by its announced size before
       * `second`, and for who does not skip at all it ends at once.
       */
      const ambiguous = (client: RawClient, valid: string, n: string) => {
        const nar = file(valid);
        const first = { info: narInfo(`by-grammar-${n}`, file(`a${n}`)), nar: file(`a${n}`) };
        const second = { info: narInfo(`by-size-${n}`, file(`b${n}`)), nar: file(`b${n}`) };
        const inside = infoBytes(client, first.info);
        const info = { ...narInfo("valid", nar), narSize: nar.length + inside.length + first.nar.length };
        const body = Buffer.concat([
          items(client, [{ info, nar }]).fill(2, 0, 1),
          inside,
          first.nar,
          infoBytes(client, second.info),
          second.nar,
        ]);
        return { body, first: first.info.path, second: second.info.path };
      };

      test("bare daemons see different items", async () => {
        const client = await bare();
        await addContents(client, "nar", "valid", Buffer.from("valid"));
        const { body, first, second } = ambiguous(client, "valid", "bare");
        const sent = await client.ask("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [body]);
        const other = await bare();
        const seen = await other.must("QueryValidPaths", { paths: [first, second], substitute: 0 });
        if (version === "2.8") expect(sent.error).toBeDefined();
        expect(seen).toEqual(version === "2.26" ? [first] : version === "2.34" ? [second] : []);
      });

      test("G8: items that could be read in two ways are not added at all", async () => {
        const client = await brokered();
        for (const known of [false, true]) {
          const { body, first, second } = ambiguous(client, "valid", `brokered-${known}`);
          if (known) await addContents(client, "nar", "valid", Buffer.from("valid"));
          const { error } = await client.ask("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [
            body,
          ]);
          expect(error).toMatch(/is shorter than the \d+ bytes that were announced|content address/);
          const other = await bare();
          expect(await other.must("QueryValidPaths", { paths: [first, second], substitute: 0 })).toEqual([]);
          expect(await client.must("IsValidPath", { path: first })).toBe(false);
        }
      });

      test("G8: a count that differs from the number of items is an error, and the connection goes on", async () => {
        const client = await brokered();
        for (const count of [0, 2, 200]) {
          const nar = file(`count ${count}`);
          const body = items(client, [{ info: narInfo("counted", nar), nar }]).fill(count, 0, 1);
          const { error } = await client.ask("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [
            body,
          ]);
          expect(error, String(count)).toBeDefined();
          expect((await client.addText("next", `${count}`)).error).toBeUndefined();
        }
      });
    });

  if (minor >= 25)
    describe("repair of a live path", () => {
      /** Adds a path and spoils it behind the daemon's back: who repairs it writes it anew. */
      const spoilt = async (name: string) => {
        const contents = Buffer.from(`contents of ${name}`);
        const { path } = await addContents(await bare(), "nar", name, contents);
        writeFileSync(hostPath(path), SPOILT);
        const nar = writeNar({ type: "regular", contents });
        return { path, nar, info: narInfo(name, nar) };
      };
      const SPOILT = "spoilt";
      const request = { method: "fixed:r:sha256", references: [], repair: true };
      const contentsOf = (path: string) => readFileSync(hostPath(path), "utf8");

      test("the bare daemon lets anybody replace it", async () => {
        const { path, nar } = await spoilt("live-bare");
        const client = await bare();
        expect((await client.must("AddToStore", { ...request, name: "live-bare" }, [nar])).path).toBe(path);
        expect(contentsOf(path)).toBe("contents of live-bare");
      });

      test("G4: nothing repairs a live path", async () => {
        const { path, nar, info } = await spoilt("live-brokered");
        const client = await brokered();
        expect((await client.must("AddToStore", { ...request, name: "live-brokered" }, [nar])).path).toBe(
          path,
        );
        await client.ask("AddToStoreNar", { ...info, repair: true, dontCheckSigs: true }, [nar]);
        if (minor >= 32)
          await client.ask("AddMultipleToStore", { repair: true, dontCheckSigs: true }, [
            items(client, [{ info, nar }]),
          ]);
        expect((await client.build(path, 1)).error).toContain("build mode 'repair' is not allowed");
        expect((await client.build(path, 2)).error).toContain("build mode 'check' is not allowed");
        expect(contentsOf(path)).toBe(SPOILT);
      });
    });
});

function infoBytes(client: RawClient, info: NarInfo): Buffer {
  const encoder = new Encoder();
  compile(validPathInfo, client.table).encode(encoder, info);
  return encoder.finish();
}
