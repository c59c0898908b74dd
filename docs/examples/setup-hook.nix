# Nix in a derivation of one's own: the setup hook makes HOME, cache and NIX_PATH, the rest is an ordinary script.
{
  pkgs ? import <nixpkgs> { },
}:
let
  nixBroker = import ../../lib { inherit pkgs; };
in
pkgs.stdenv.mkDerivation {
  name = "numbers";
  requiredSystemFeatures = [ "nix-broker" ];
  preferLocalBuild = true;
  nativeBuildInputs = [ nixBroker.setupHook ];
  expression = ''
    { n }:
    derivation {
      name = "number-''${toString n}";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-c" "echo ''${toString n} > $out" ];
    }
  '';
  buildCommand = ''
    echo "$expression" > number.nix
    for n in 1 2 3; do
      number=$(nix-build --no-out-link number.nix --arg n $n)
      cat $number >> $out
    done
  '';
}
