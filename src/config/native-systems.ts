const linuxSystems: Readonly<Record<string, readonly string[]>> = {
  // Nix builds i686-linux on x86_64-linux without being told to (`extra-platforms`).
  x64: ["x86_64-linux", "i686-linux"],
  ia32: ["i686-linux"],
  arm64: ["aarch64-linux"],
  arm: ["armv7l-linux", "armv6l-linux"],
  riscv64: ["riscv64-linux"],
  ppc64: ["powerpc64le-linux"],
  s390x: ["s390x-linux"],
  loong64: ["loongarch64-linux"],
};

/** Nix's names for the systems that a machine builds for itself. */
export function nativeSystems(architecture: string = process.arch): readonly string[] {
  return linuxSystems[architecture] ?? [`${architecture}-linux`];
}
