# A package with the setup hook: in `nativeBuildInputs` it makes Nix usable inside of any derivation that requires nix-broker.
{ stdenv }:
stdenv.mkDerivation {
  name = "nix-broker-setup-hook";
  hook = ./setup-hook.sh;
  buildCommand = ''
    mkdir -p $out/nix-support
    cp $hook $out/nix-support/setup-hook
  '';
  meta.description = "Setup hook to run Nix inside of builds";
}
