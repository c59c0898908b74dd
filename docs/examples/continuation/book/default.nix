# One derivation a chapter; which there are is only known when the source is there.
{
  pkgs ? import <nixpkgs> { },
}:
map (
  name:
  pkgs.stdenv.mkDerivation {
    name = "typeset-${name}";
    chapter = ./chapters + "/${name}";
    buildCommand = ''
      tr a-z A-Z < $chapter > $out
    '';
  }
) (builtins.attrNames (builtins.readDir ./chapters))
