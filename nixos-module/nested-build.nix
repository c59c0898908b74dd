# What the NixOS test builds: an outer build that builds inside, and tries what it may not. Arguments are store paths, which have
# to be named as such: a plain text would make none of them an input.
{
  bash,
  coreutils,
  nix,
}:
let
  inherit (builtins) storePath;
in
derivation {
  name = "outer";
  system = builtins.currentSystem;
  builder = "${storePath bash}/bin/bash";
  PATH = "${storePath coreutils}/bin:${storePath nix}/bin";
  requiredSystemFeatures = [ "nix-broker" ];
  inner = ''
    derivation {
      name = "inner";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-c" "echo built inside > $out" ];
    }
  '';
  args = [
    "-e"
    "-c"
    ''
      export HOME=$PWD/home NIX_REMOTE=daemon; mkdir -p $HOME
      echo "$inner" > inner.nix
      result=$(nix-build --no-out-link inner.nix)
      cat $result
      if nix-store --gc; then exit 1; fi
      echo $result > $out
    ''
  ];
}
