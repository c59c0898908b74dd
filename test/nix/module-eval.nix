# The NixOS module evaluated with a configuration: what it makes of it, as plain data.
{
  # nixpkgs' lib, or the stand-in.
  lib,
  # A module.
  configuration,
}:
let
  inherit (lib) mkOption types;
  anything = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
  # Packages are told by their names; files made of text are what they are made of.
  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/${name}";
    meta = { };
  };
  pkgs = {
    nix-broker = package "nix-broker";
    util-linux = package "util-linux";
    formats.toml = _: {
      type = types.attrsOf types.anything;
      generate = name: value: package name // { inherit value; };
    };
    runCommand =
      name: _: script:
      package name // { inherit script; };
  };
  # What NixOS declares, as far as the module defines it.
  nixos = {
    options = {
      assertions = mkOption {
        type = types.listOf types.anything;
        default = [ ];
      };
      nix = {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        package = mkOption {
          type = types.package;
          default = package "nix";
        };
        settings = mkOption {
          type = types.submodule {
            freeformType = types.attrsOf types.anything;
            options = { };
          };
          default = { };
        };
        extraOptions = mkOption {
          type = types.str;
          default = "";
        };
        buildMachines = mkOption {
          type = types.listOf types.anything;
          default = [ ];
        };
      };
      users = anything;
      environment = anything;
      systemd = anything;
    };
  };
  evaluated = lib.evalModules {
    modules = [
      ../../nixos-module
      nixos
      configuration
    ];
    specialArgs = { inherit pkgs; };
  };
  inherit (evaluated) config;
in
{
  failures = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
  toml = config.environment.etc."nix-broker/config.toml".source.value;
  rootConfig = {
    inherit (config.environment.etc."nix-broker/root.conf") mode;
    inherit (config.environment.etc."nix-broker/root.conf".source) script;
  };
  nix = config.nix.settings;
  users = config.users;
  sessionVariables = config.environment.sessionVariables or { };
  services = builtins.mapAttrs (_: service: service.serviceConfig) config.systemd.services;
  sockets = config.systemd.sockets or { };
}
