import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NarError, NarWalker } from "../../src/store/nar-walker.ts";
import { type NarNode, narStrings, u64, writeNar } from "./nar.ts";

function file(text: string): NarNode {
  return { type: "regular", contents: Buffer.from(text) };
}

const entryName = fc
  .uint8Array({ minLength: 1, maxLength: 12 })
  .map((bytes) =>
    Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x61 : byte))).toString("latin1"),
  )
  .filter((name) => name !== "." && name !== "..");
const { node: narNode } = fc.letrec<{ node: NarNode }>((tie) => ({
  node: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({
      type: fc.constant("regular" as const),
      contents: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      executable: fc.boolean(),
    }),
    fc.record({ type: fc.constant("symlink" as const), target: entryName }),
    fc.record({
      type: fc.constant("directory" as const),
      entries: fc
        .uniqueArray(fc.tuple(entryName, tie("node")), { maxLength: 4, selector: ([name]) => name })
        .map((entries) => entries.sort(([x], [y]) => (x < y ? -1 : 1))),
    }),
  ),
}));

/** What a walker makes of some bytes that come in chunks of these sizes (over and over). */
function walk(bytes: Buffer, sizes: readonly number[] = [bytes.length]) {
  const contents: Buffer[] = [];
  const walker = new NarWalker((slice) => contents.push(Buffer.from(slice)));
  let taken = 0;
  let error: string | undefined;
  try {
    for (let i = 0, at = 0; at < bytes.length && !walker.done; i++) {
      const chunk = bytes.subarray(at, at + Math.max(1, sizes[i % sizes.length]!));
      at += chunk.length;
      taken += walker.push(chunk);
    }
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(NarError);
    error = (thrown as NarError).message;
  }
  const result = {
    done: walker.done,
    rootType: walker.rootType,
    contents: Buffer.concat(contents).toString("hex"),
  };
  // Before an error, how much was taken depends on the chunks; the message has the place.
  return error === undefined ? { ...result, taken, length: walker.length } : { ...result, error };
}

const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 });

describe("a NAR", () => {
  test("is walked over to its end and no further, however it is cut", () => {
    fc.assert(
      fc.property(narNode, sizes, fc.uint8Array({ maxLength: 20 }), (root, chunks, rest) => {
        const nar = writeNar(root);
        const stream = Buffer.concat([nar, rest]);
        const whole = walk(stream);
        expect(whole).toMatchObject({
          done: true,
          taken: nar.length,
          length: nar.length,
          rootType: root.type === "regular" && root.executable ? "executable" : root.type,
        });
        expect(walk(stream, chunks)).toEqual(whole);
        expect(walk(stream, [1])).toEqual(whole);
      }),
    );
  });

  test("that is damaged gives the same error, however it is cut, or is another NAR", () => {
    const change = fc.tuple(fc.nat(), fc.nat({ max: 255 }));
    fc.assert(
      fc.property(
        narNode,
        fc.array(change, { minLength: 1, maxLength: 3 }),
        sizes,
        (root, changes, chunks) => {
          const nar = writeNar(root);
          for (const [position, byte] of changes) nar[position % nar.length] = byte;
          expect(walk(nar, chunks)).toEqual(walk(nar));
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("that is cut off is not done", () => {
    const nar = writeNar({ type: "directory", entries: [["a", file("x")]] });
    for (let length = 0; length < nar.length; length++)
      expect(walk(nar.subarray(0, length)).done).toBe(false);
  });

  test("hands on the contents of files and keeps none", () => {
    const walker = new NarWalker((slice) => slices.push(slice));
    const slices: Buffer[] = [];
    const nar = writeNar({
      type: "directory",
      entries: [
        ["a", file("one")],
        ["b", file("")],
        ["c", file("two")],
      ],
    });
    expect(walker.push(nar)).toBe(nar.length);
    expect(slices.map(String)).toEqual(["one", "two"]);
    expect(slices.every((slice) => slice.buffer === nar.buffer)).toBe(true);
  });

  test("takes nothing after its end", () => {
    const walker = new NarWalker();
    const nar = writeNar(file("x"));
    walker.push(nar);
    expect(walker.done).toBe(true);
    expect(walker.push(nar)).toBe(0);
    expect(walker.length).toBe(nar.length);
  });

  test("passes over more bytes than fit in 32 bits", () => {
    const walker = new NarWalker();
    const size = 2 ** 32 + 5;
    walker.push(Buffer.concat([narStrings("nix-archive-1", "(", "type", "regular", "contents"), u64(size)]));
    const mebibyte = Buffer.alloc(2 ** 20);
    for (let i = 0; i < 4096; i++) expect(walker.push(mebibyte)).toBe(mebibyte.length);
    expect(walker.push(Buffer.concat([Buffer.alloc(8), narStrings(")")]))).toBe(24);
    expect(walker.done).toBe(true);
    expect(walker.length).toBe(24 + 16 * 2 + 16 + 16 + 8 + size + 3 + 16);
  });

  const nested = (depth: number): NarNode =>
    depth === 1 ? file("") : { type: "directory", entries: [["d", nested(depth - 1)]] };

  test("may be 64 levels deep and no deeper", () => {
    expect(walk(writeNar(nested(64))).done).toBe(true);
    expect(walk(writeNar(nested(65)))).toMatchObject({
      done: false,
      error: expect.stringContaining("64 levels"),
    });
  });

  test("may have names of 255 bytes and targets of 4095 bytes and no longer", () => {
    const named = (length: number) =>
      writeNar({ type: "directory", entries: [["n".repeat(length), file("")]] });
    const linked = (length: number) => writeNar({ type: "symlink", target: "t".repeat(length) });
    expect(walk(named(255)).done).toBe(true);
    expect(walk(linked(4095)).done).toBe(true);
    expect(walk(named(256))).toMatchObject({
      error: expect.stringContaining("name must not be longer than 255"),
    });
    expect(walk(linked(4096))).toMatchObject({
      error: expect.stringContaining("target must not be longer than 4095"),
    });
  });

  const entries = (...names: string[]) =>
    writeNar({ type: "directory", entries: names.map((name) => [name, file("")] as const) });
  const magic = narStrings("nix-archive-1");
  const afterMagic = (...strings: (string | Buffer)[]) => Buffer.concat([magic, narStrings(...strings)]);
  const patched = (bytes: Buffer, from: Buffer, to: Buffer) => {
    const at = bytes.indexOf(from);
    expect(at).toBeGreaterThanOrEqual(0);
    return Buffer.concat([bytes.subarray(0, at), to, bytes.subarray(at + from.length)]);
  };

  test.each([
    ["another format", Buffer.from("PK\x03\x04 and more of that"), "go on with"],
    ["another version", narStrings("nix-archive-2", "(", "type"), "go on with"],
    ["magic that is too long", narStrings("nix-archive-10", "(", "type"), "go on with"],
    ["a tag in the wrong place", afterMagic("(", "contents"), "go on with"],
    ["an unknown type", afterMagic("(", "type", "fifo"), "a file type must come next"],
    ["an unknown type of seven letters", afterMagic("(", "type", "fifofif"), "a file type must come next"],
    ["a type that is cut", afterMagic("(", "type", "symlinc"), "go on with"],
    ["an unknown type of nine letters", afterMagic("(", "type", "directora"), "go on with"],
    ["a file without contents", afterMagic("(", "type", "regular", ")"), '"contents" must come next'],
    [
      "a mark of execution that says something",
      afterMagic("(", "type", "regular", "executable", "1"),
      "go on with",
    ],
    [
      "execution after the contents",
      afterMagic("(", "type", "regular", "contents", "x", "executable", "", ")"),
      "go on with",
    ],
    [
      "contents twice",
      afterMagic("(", "type", "regular", "contents", "x", "contents", "x", ")"),
      "go on with",
    ],
    ["the type twice", afterMagic("(", "type", "regular", "type", "regular"), "must come next"],
    ["an entry without a name", afterMagic("(", "type", "directory", "entry", "(", "node"), "go on with"],
    ["the same name twice", entries("a", "a"), 'entry "a" does not come after'],
    ["names out of order", entries("b", "a"), 'entry "a" does not come after'],
    ["names in the order of letters, not bytes", entries("a", "B"), 'entry "B" does not come after'],
    ["an empty name", entries(""), "the name must not be empty"],
    ["the name .", entries("."), "cannot be the name of an entry"],
    ["the name ..", entries(".."), "cannot be the name of an entry"],
    ["a name with a slash", entries("a/b"), "cannot be the name of an entry"],
    ["a name with a NUL", entries("a\0"), "cannot be the name of an entry"],
    ["an empty target", writeNar({ type: "symlink", target: "" }), "the target must not be empty"],
    ["a target with a NUL", writeNar({ type: "symlink", target: "a\0b" }), "holds a NUL"],
    [
      "padding of contents that is not zero",
      patched(writeNar(file("abc")), Buffer.from("abc\0"), Buffer.from("abc\x01")),
      "padding is not zero",
    ],
    [
      "padding of a tag that is not zero",
      patched(writeNar(file("abc")), Buffer.from("type\0"), Buffer.from("type\x01")),
      "go on with",
    ],
    [
      "contents of 2^53 bytes",
      Buffer.concat([afterMagic("(", "type", "regular", "contents"), u64(2n ** 53n)]),
      "contents must not be longer",
    ],
    [
      "contents of 2^64 - 1 bytes",
      Buffer.concat([afterMagic("(", "type", "regular", "contents"), u64(2n ** 64n - 1n)]),
      "contents must not be longer",
    ],
    [
      "a name of 2^32 + 1 bytes",
      Buffer.concat([afterMagic("(", "type", "directory", "entry", "(", "name"), u64(2n ** 32n + 1n)]),
      "name must not be longer",
    ],
  ])("is refused with %s", (_, bytes, why) => {
    expect(walk(bytes)).toMatchObject({ done: false, error: expect.stringContaining(why) });
    expect(walk(bytes, [1])).toEqual(walk(bytes));
  });

  test("once refused stays refused", () => {
    const walker = new NarWalker();
    expect(() => walker.push(Buffer.alloc(8))).toThrow("malformed at byte 0");
    expect(() => walker.push(writeNar(file("")))).toThrow("malformed at byte 0");
    expect(walker.done).toBe(false);
  });
});
