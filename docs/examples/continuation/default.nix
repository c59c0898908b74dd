# Derivations that return derivations, for `nix-broker build`.
{
  pkgs ? import <nixpkgs> { },
}:
let
  nixBroker = import ../../../lib { inherit pkgs; };
in
{
  # Needs nix-broker: what is to be built next is found out inside. The builder does not wait for it.
  chapters = nixBroker.instantiateInside {
    name = "chapters";
    src = ./book;
  };

  # Needs no nix-broker: these are known already, and still are not built before they are due.
  later = nixBroker.returnDerivations {
    name = "later";
    derivations = [ pkgs.hello ];
  };
}
