/** The machines that packages are made for, under the names that Debian and Node have for them. */
export interface Architecture {
  /** As Debian says, and the names of packages. */
  readonly debian: "amd64" | "arm64";
  /** As Node and npm say. */
  readonly node: "x64" | "arm64";
  /** As uname says. */
  readonly machine: "x86_64" | "aarch64";
}

const architectures: readonly Architecture[] = [
  { debian: "amd64", node: "x64", machine: "x86_64" },
  { debian: "arm64", node: "arm64", machine: "aarch64" },
];

/** No package can be made of that. */
export class PackageError extends Error {
  override readonly name = "PackageError";
}

/**
 * @param name any of its names
 * @throws PackageError when there is none of that name
 */
export function architectureOf(name: string): Architecture {
  const found = architectures.find(
    ({ debian, node, machine }) => name === debian || name === node || name === machine,
  );
  if (found !== undefined) return found;
  const known = architectures.map(({ debian }) => debian).join(" and ");
  throw new PackageError(`No packages are made for "${name}", only for ${known}.`);
}
