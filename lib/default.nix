# What Nix expressions need to use nix-broker. docs/lib.md tells of each function, with examples that are tests.
{
  # A nixpkgs that was imported. Everything else has a default then.
  pkgs ? null,
  system ? if pkgs == null then builtins.currentSystem else pkgs.stdenv.hostPlatform.system,
  # Without nixpkgs: a bash, and the folders with the programs that builders call (coreutils, tar, patch, Nix). A bare name is
  # looked up in these folders.
  shell ? "bash",
  path ? [
    "/usr/bin"
    "/bin"
  ],
  # What makes derivations: anything with nixpkgs' `mkDerivation`.
  stdenv ?
    if pkgs == null then import ./plain-stdenv.nix { inherit system shell path; } else pkgs.stdenvNoCC,
  # The Nix whose programs run inside; null if `path` has them.
  nix ? if pkgs == null then null else pkgs.nix,
  # The nixpkgs that inner expressions find as <nixpkgs>, where a function is not told another.
  nixpkgs ? if pkgs == null then null else pkgs.path,
}:
let
  expression = import ./expression.nix;
  handOn = import ./hand-on.nix { inherit expression nixpkgs; };
  setupHook = import ./setup-hook.nix { inherit stdenv; };
  recursiveBuild = import ./recursive-build.nix {
    inherit
      stdenv
      nix
      setupHook
      handOn
      expression
      ;
  };
in
{
  inherit setupHook recursiveBuild;
  buildFromUpstream = import ./build-from-upstream.nix { inherit recursiveBuild; };
  instantiateInside = import ./instantiate-inside.nix { inherit recursiveBuild; };
  returnDerivations = import ./return-derivations.nix { inherit stdenv; };
  toExpression = expression.print;
}
