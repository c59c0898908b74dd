# The package. Dependencies come by the hashes of package-lock.json itself: there is no hash here to go stale.
{
  lib,
  buildNpmPackage,
  importNpmLock,
  nodejs_24,
  # Where the tarballs that the lock file names by name, version and hash are downloaded from: no host is named here.
  registry ?
    let
      configured = builtins.getEnv "NPM_CONFIG_REGISTRY";
    in
    if configured != "" then
      configured
    else
      throw "nix-broker: give package.nix the npm registry to download from: registry = \"https://…\" (npm config get registry prints yours), or set NPM_CONFIG_REGISTRY and evaluate with --impure",
}:
let
  package = lib.importJSON ./package.json;
  packageLock = import ./nixos-module/lock-with-addresses.nix {
    lock = lib.importJSON ./package-lock.json;
    inherit registry;
  };
in
buildNpmPackage {
  pname = package.name;
  inherit (package) version;

  src = lib.fileset.toSource {
    root = ./.;
    fileset = lib.fileset.unions [
      ./package.json
      ./package-lock.json
      ./scripts
      ./src
      ./systemd
      ./docs
      ./LICENSE
    ];
  };

  nodejs = nodejs_24;
  npmDeps = importNpmLock { inherit package packageLock; };
  npmConfigHook = importNpmLock.npmConfigHook;
  # Install scripts would download a Node; esbuild, koffi and bufferutil work as they come.
  npmFlags = [ "--ignore-scripts" ];

  buildPhase = ''
    runHook preBuild
    node scripts/build.ts
    runHook postBuild
  '';

  # Root's programs run in places that know no PATH, so every program is named by its store path.
  installPhase = ''
    runHook preInstall
    npm prune --omit=dev --ignore-scripts --offline
    mkdir -p $out/libexec/nix-broker $out/bin $out/lib/systemd/system $out/lib/tmpfiles.d $out/lib/sysusers.d
    mkdir -p $out/share/doc/nix-broker
    cp -r dist/. node_modules $out/libexec/nix-broker/
    for program in nix-broker nix-broker-root; do
      substituteInPlace $out/libexec/nix-broker/$program \
        --replace-fail "\''${NIX_BROKER_NODE:-node}" ${lib.getExe nodejs_24}
    done
    ln -s $out/libexec/nix-broker/nix-broker $out/bin/nix-broker
    cp -r docs/. $out/share/doc/nix-broker/
    cp systemd/*.service systemd/*.socket $out/lib/systemd/system/
    substituteInPlace $out/lib/systemd/system/* \
      --replace-quiet ExecStart=nix-broker ExecStart=$out/bin/nix-broker \
      --replace-quiet /usr/share/doc $out/share/doc
    cp systemd/tmpfiles.conf $out/lib/tmpfiles.d/nix-broker.conf
    cp systemd/sysusers.conf $out/lib/sysusers.d/nix-broker.conf
    runHook postInstall
  '';

  meta = {
    inherit (package) description;
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
    mainProgram = "nix-broker";
  };
}
