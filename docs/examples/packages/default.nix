# A package set whose packages are built by their upstreams' own Nix expressions.
{
  pkgs ? import <nixpkgs> { },
}:
let
  nixBroker = import ../../../lib { inherit pkgs; };
in
rec {
  greeter = pkgs.callPackage ./greeter.nix { inherit (nixBroker) buildFromUpstream; };
  wordcount = pkgs.callPackage ./wordcount.nix {
    inherit (nixBroker) buildFromUpstream;
    inherit greeter;
  };
  report = pkgs.callPackage ./report.nix {
    inherit (nixBroker) recursiveBuild;
    inherit greeter;
  };
}
