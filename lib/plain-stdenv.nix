# As much of nixpkgs' stdenv as this library uses, for those without nixpkgs: unpack, patch, build and install phases
# with their hooks, setup hooks of `nativeBuildInputs`, `meta`, `passthru` and `overrideAttrs`.
{
  system,
  # A bash.
  shell,
  # Folders with the programs that builders call.
  path,
}:
let
  functionOf = value: if builtins.isFunction value then value else _: value;

  # As in nixpkgs: a change is attributes, a function of the old ones, or of the final and the old ones.
  changed =
    change: final: old:
    let
      first = functionOf change old;
    in
    old // (if builtins.isFunction first then change final old else first);

  withoutNulls =
    attrs: removeAttrs attrs (builtins.filter (name: attrs.${name} == null) (builtins.attrNames attrs));

  make =
    attrsOf:
    let
      attrs = attrsOf attrs;
      name = attrs.name or "${attrs.pname}-${attrs.version}";
      package = derivation (
        withoutNulls (
          removeAttrs attrs [
            "meta"
            "passthru"
          ]
        )
        // {
          inherit name system;
          outputs = attrs.outputs or [ "out" ];
          # Every sandbox has this, and the broker allows it; another shell may be outside of the store.
          builder = "/bin/sh";
          args = [
            "-c"
            "exec ${shell} -e $0"
            ./plain-stdenv.sh
          ];
          PATH = builtins.concatStringsSep ":" path;
        }
      );
    in
    package
    // (attrs.passthru or { })
    // {
      inherit name;
      passthru = attrs.passthru or { };
      meta = {
        outputsToInstall = [ "out" ];
      }
      // (attrs.meta or { });
      overrideAttrs = change: make (final: changed change final (attrsOf final));
    };
in
{
  mkDerivation = attrs: make (functionOf attrs);
}
