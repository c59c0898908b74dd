# Uses what nixpkgs' configuration and overlays say.
let
  pkgs = import <nixpkgs> { };
in
{
  report = pkgs.stdenv.mkDerivation {
    name = "report";
    inherit (pkgs) hello greeter;
    buildCommand = ''
      $hello/bin/hello report > $out
      $greeter/bin/greeter report >> $out
    '';
  };
}
