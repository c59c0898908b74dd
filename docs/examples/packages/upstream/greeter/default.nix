# An upstream with a Nix build of its own, as one finds them: it takes nixpkgs from NIX_PATH.
{
  pkgs ? import <nixpkgs> { },
}:
pkgs.stdenv.mkDerivation {
  name = "greeter";
  src = ./.;
  installPhase = ''
    mkdir -p $out/bin
    cp greeter.sh $out/bin/greeter
    chmod +x $out/bin/greeter
  '';
}
