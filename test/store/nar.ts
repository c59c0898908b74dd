/** A file system object as a NAR holds it. */
export type NarNode =
  | { readonly type: "regular"; readonly contents: Buffer; readonly executable?: boolean }
  | { readonly type: "symlink"; readonly target: string }
  | { readonly type: "directory"; readonly entries: readonly (readonly [string, NarNode])[] };

/** Writes a NAR, entries in the order given. Texts hold one byte a character. */
export function writeNar(root: NarNode): Buffer {
  return Buffer.concat([narStrings("nix-archive-1"), ...nodeParts(root)]);
}

/** Strings as a NAR frames them: length, bytes, zeros up to a multiple of 8. */
export function narStrings(...texts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    texts.flatMap((text) => {
      const bytes = typeof text === "string" ? Buffer.from(text, "latin1") : text;
      return [u64(bytes.length), bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)];
    }),
  );
}

/** A length as a NAR writes it. */
export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function nodeParts(node: NarNode): Buffer[] {
  switch (node.type) {
    case "regular":
      return [
        narStrings("(", "type", "regular", ...(node.executable ? ["executable", ""] : []), "contents"),
        narStrings(node.contents, ")"),
      ];
    case "symlink":
      return [narStrings("(", "type", "symlink", "target", node.target, ")")];
    case "directory":
      return [
        narStrings("(", "type", "directory"),
        ...node.entries.flatMap(([name, child]) => [
          narStrings("entry", "(", "name", name, "node"),
          ...nodeParts(child),
          narStrings(")"),
        ]),
        narStrings(")"),
      ];
  }
}
