# The few attributes and habits of nixpkgs that the examples rely on, in place of nixpkgs itself. Tests put lib/plain-stdenv.*
# beside this file: like nixpkgs, the folder is copied into the store as a whole.
{
  system ? builtins.currentSystem,
  config ? (
    let
      file = builtins.getEnv "NIXPKGS_CONFIG";
    in
    if file == "" then { } else import file
  ),
  overlays ? (
    let
      found = builtins.tryEval <nixpkgs-overlays>;
    in
    if found.success then import found.value else [ ]
  ),
}:
let
  stdenv = import ./plain-stdenv.nix {
    inherit system;
    shell = "/bin/bash";
    path = [
      "/usr/bin"
      "/bin"
    ];
  };
  extend =
    packages: overlay: final:
    let
      before = packages final;
    in
    before // overlay final before;
  base = final: {
    inherit config;
    path = ./.;
    # Sandboxes of the lab have Nix in /usr/bin.
    nix = null;
    stdenv = stdenv // {
      hostPlatform = { inherit system; };
    };
    stdenvNoCC = final.stdenv;
    callPackage =
      function: arguments:
      let
        file = if builtins.isFunction function then function else import function;
        wanted = builtins.functionArgs file;
      in
      file (builtins.intersectAttrs wanted final // arguments);
    lib.licenses.mit = {
      spdxId = "MIT";
    };
    hello = final.stdenv.mkDerivation {
      pname = "hello";
      version = "1.0";
      greeting = config.greeting or "Hello";
      buildCommand = ''
        mkdir -p $out/bin
        printf '#!/bin/sh\necho "%s, $1"\n' "$greeting" > $out/bin/hello
        chmod +x $out/bin/hello
      '';
    };
  };
  all = builtins.foldl' extend base overlays;
  packages = all packages;
in
packages
