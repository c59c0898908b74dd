# A package whose upstream has a Nix build of its own. Name, version, source, `meta` and `passthru` are local: known
# without fetching or building anything. The build happens inside, where upstream's expression is evaluated.
{ recursiveBuild }:
let
  check =
    given:
    let
      missing = builtins.filter (name: !(given ? ${name})) [
        "pname"
        "version"
        "src"
      ];
    in
    if missing == [ ] then
      given
    else
      throw "nix-broker: buildFromUpstream needs ${builtins.concatStringsSep ", " missing}: what is known of a package without building it is said here, not by upstream";

  # As lib.makeOverridable: `override` changes what was given here, `overrideAttrs` what came of it.
  overridable =
    make: given:
    make given
    // {
      override =
        change: overridable make (given // (if builtins.isFunction change then change given else change));
      overrideAttrs = change: overridable (again: (make again).overrideAttrs change) given;
    };
in
given:
if builtins.isFunction given then
  # finalAttrs style: overrideAttrs changes what the function sees.
  recursiveBuild (final: check (given final))
else
  overridable (arguments: recursiveBuild (check arguments)) given
