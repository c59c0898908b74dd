# The npm packages that nix-broker is built from, by the hashes of package-lock.json: arguments for nixpkgs' importNpmLock.
# The lock file has no addresses, so that it suits every mirror, and no host is named here: npm itself fetches each tarball,
# from the registry that the Nix daemon's NPM_CONFIG_REGISTRY names, else from its own default.
{
  lib,
  stdenvNoCC,
  cacert,
  nodejs,
}:
let
  package = lib.importJSON ./package.json;
  lock = lib.importJSON ./package-lock.json;
  inherit (stdenvNoCC.hostPlatform.node) arch platform;

  # "node_modules/a/node_modules/@scope/b" is @scope/b.
  nameOf =
    path: module:
    module.name or (lib.last (builtins.filter builtins.isString (builtins.split "node_modules/" path)));

  # Of what developers need, only the bundler is wanted.
  isBundler = path: path == "node_modules/esbuild" || lib.hasPrefix "node_modules/@esbuild/" path;
  isWanted =
    path: module:
    (!(module.dev or false) || isBundler path)
    && builtins.elem platform (module.os or [ platform ])
    && builtins.elem arch (module.cpu or [ arch ]);

  # npm would look for an optional package that the lock file does not have.
  onlyWanted =
    module:
    module
    // lib.optionalAttrs (module ? optionalDependencies) {
      optionalDependencies = lib.filterAttrs (
        name: _: modules ? "node_modules/${name}"
      ) module.optionalDependencies;
    };
  modules = lib.filterAttrs isWanted (removeAttrs lock.packages [ "" ]);

  withoutTools =
    attrs:
    attrs
    // {
      devDependencies = { inherit (attrs.devDependencies) esbuild; };
    };

  fetch =
    path: module:
    let
      name = nameOf path module;
    in
    stdenvNoCC.mkDerivation {
      name = "${baseNameOf name}-${module.version}.tgz";
      outputHash = module.integrity;
      outputHashMode = "flat";
      impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "NPM_CONFIG_REGISTRY" ];
      nativeBuildInputs = [ nodejs ];
      NODE_EXTRA_CA_CERTS = "${cacert}/etc/ssl/certs/ca-bundle.crt";
      buildCommand = ''
        export HOME=$TMPDIR
        npm pack --ignore-scripts ${name}@${module.version}
        mv *.tgz $out
      '';
    };
in
{
  package = withoutTools package;
  packageLock = lock // {
    packages = builtins.mapAttrs (_: onlyWanted) modules // {
      "" = withoutTools lock.packages."";
    };
  };
  packageSourceOverrides = builtins.mapAttrs fetch modules;
}
