# For those without flakes: `nix-build -A nix-broker`, `imports = [ (import …).nixosModule ]`.
{
  pkgs ? import <nixpkgs> { },
}:
{
  nix-broker = pkgs.callPackage ./package.nix { };
  # Functions for Nix expressions (docs/lib.md).
  lib = import ./lib { inherit pkgs; };
  nixosModule = ./nixos-module;
  nixosTest = import ./nixos-module/test.nix { inherit pkgs; };
  overlay = final: _prev: { nix-broker = final.callPackage ./package.nix { }; };
}
