# A package that names derivations which are to be built next; they are known when it is evaluated, so it needs no
# nix-broker to be built.
{ stdenv }:
{
  name,
  derivations,
}:
stdenv.mkDerivation {
  inherit name;
  # Inputs are the derivations themselves, not what they build.
  derivations = map (package: builtins.unsafeDiscardOutputDependency package.drvPath) derivations;
  buildCommand = ''
    mkdir -p $out/nix-support
    printf '%s\n' $derivations > $out/nix-support/continuation
  '';
}
