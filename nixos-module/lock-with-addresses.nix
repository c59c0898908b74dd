# The lock file has no addresses, so that it suits every mirror. importNpmLock needs them; registries have each tarball at
# a place that follows from its name and version, and the lock file's own hash says whether it is the right one.
{ lock, registry }:
let
  # "node_modules/a/node_modules/@scope/b" is @scope/b.
  nameOf =
    path: module:
    let
      parts = builtins.filter builtins.isString (builtins.split "node_modules/" path);
    in
    module.name or (builtins.elemAt parts (builtins.length parts - 1));
  lastPart =
    name:
    let
      parts = builtins.filter builtins.isString (builtins.split "/" name);
    in
    builtins.elemAt parts (builtins.length parts - 1);
  withAddress =
    path: module:
    if path == "" || module ? resolved || module.link or false then
      module
    else
      let
        name = nameOf path module;
      in
      module // { resolved = "${registry}/${name}/-/${lastPart name}-${module.version}.tgz"; };
in
lock // { packages = builtins.mapAttrs withAddress lock.packages; }
