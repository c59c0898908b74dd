# What the evaluation inside of a build finds around it: NIX_PATH, nixpkgs' overlays and configuration, settings of Nix.
# The result are attributes of the outer derivation; the setup hook makes an environment of them.
{ expression, nixpkgs }:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    isAttrs
    isFunction
    map
    ;
  defaultNixpkgs = nixpkgs;

  overlayText =
    overlay:
    if isFunction overlay then
      throw "nix-broker: an overlay that is a function cannot be handed to the evaluation inside of a build: put it into a file, and give the file's path (overlays = [ ./overlay.nix ])"
    else if isAttrs overlay && !(overlay ? outPath) then
      # Packages of the outer evaluation, which are built before.
      "(final: prev: ${expression.print "an overlay" overlay})"
    else
      "(import ${expression.print "an overlay" overlay})";

  settingText =
    value:
    if builtins.isList value then
      concatStringsSep " " (map toString value)
    else if builtins.isBool value then
      (if value then "true" else "false")
    else
      toString value;
in
{
  # A folder, or what has an `outPath`; null for none.
  nixpkgs ? defaultNixpkgs,
  # Files or folders; or sets of packages and plain values, to be put over those of nixpkgs.
  overlays ? [ ],
  # nixpkgs' configuration: a file, or a set of plain values.
  config ? { },
  # More entries of NIX_PATH: name to folder.
  nixPath ? { },
  # Settings of Nix, for NIX_CONFIG.
  settings ? { },
}:
let
  entries = (if nixpkgs == null then { } else { inherit nixpkgs; }) // nixPath;
  placeOf = value: if builtins.isPath value then expression.inStore value else "${value}";
in
{
  nixBrokerPath = concatStringsSep ":" (map (name: "${name}=${placeOf entries.${name}}") (attrNames entries));
  nixBrokerOverlays =
    if overlays == [ ] then null else "[ ${concatStringsSep " " (map overlayText overlays)} ]";
  nixBrokerConfig =
    if config == { } then
      null
    else if isAttrs config && !(config ? outPath) then
      expression.print "config" config
    else if isFunction config then
      throw "nix-broker: a configuration of nixpkgs that is a function cannot be handed to the evaluation inside of a build: give the path of a file (config = ./config.nix)"
    else
      "import ${expression.print "config" config}";
  nixBrokerSettings =
    if settings == { } then
      null
    else
      concatStringsSep "\n" (map (name: "${name} = ${settingText settings.${name}}") (attrNames settings));
}
