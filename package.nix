# The package. Dependencies come by the hashes of package-lock.json itself: there is no hash here to go stale.
{
  lib,
  buildNpmPackage,
  importNpmLock,
  stdenv,
  stdenvNoCC,
  cacert,
  nodejs_24,
}:
let
  package = lib.importJSON ./package.json;
  modules = import ./npm-modules.nix {
    inherit lib stdenvNoCC cacert;
    nodejs = nodejs_24;
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
      ./lib
      ./packaging/documents.ts
      ./README.md
      ./CHANGELOG.md
      ./LICENSE
    ];
  };

  nodejs = nodejs_24;
  npmDeps = importNpmLock modules;
  npmConfigHook = importNpmLock.npmConfigHook;
  # esbuild, koffi and bufferutil bring what is built; their install scripts would download or compile.
  npmFlags = [ "--ignore-scripts" ];
  # The hooks are linked without libraries.
  buildInputs = [ (lib.getOutput "static" stdenv.cc.libc) ];

  # The package.json of importNpmLock names tarballs in the store, and the bundle holds what it reads: without its own,
  # the package would keep them all.
  buildPhase = ''
    runHook preBuild
    cp --no-preserve=mode ${./package.json} package.json
    node scripts/build.ts
    runHook postBuild
  '';

  # Root's programs run in places that know no PATH, so every program is named by its store path. Of node_modules only
  # what has native parts is not in the bundle.
  installPhase = ''
    runHook preInstall
    mkdir -p $out/libexec/nix-broker $out/bin $out/lib/systemd/system $out/lib/tmpfiles.d $out/lib/sysusers.d
    mkdir -p $out/share/doc $out/share/nix-broker
    for page in dist/man/*; do
      install -D -m 644 $page $out/share/man/man''${page##*.}/$(basename $page)
    done
    install -D -m 644 dist/completions/nix-broker.bash $out/share/bash-completion/completions/nix-broker
    install -D -m 644 dist/completions/_nix-broker $out/share/zsh/site-functions/_nix-broker
    install -D -m 644 dist/completions/nix-broker.fish $out/share/fish/vendor_completions.d/nix-broker.fish
    rm -r dist/man dist/completions
    cp -r dist/. $out/libexec/nix-broker/
    for module in koffi @koromix bufferutil node-gyp-build; do
      cp -r --parents node_modules/$module $out/libexec/nix-broker/
    done
    for program in nix-broker nix-broker-root; do
      substituteInPlace $out/libexec/nix-broker/$program \
        --replace-fail "\''${NIX_BROKER_NODE:-node}" ${lib.getExe nodejs_24}
    done
    ln -s $out/libexec/nix-broker/nix-broker $out/bin/nix-broker
    cp -r lib $out/share/nix-broker/
    node -e 'import("./packaging/documents.ts").then((m) => m.copyDocuments(...process.argv.slice(1)))' \
      $out/share/doc/nix-broker $out
    cp systemd/*.service systemd/*.socket $out/lib/systemd/system/
    substituteInPlace $out/lib/systemd/system/* \
      --replace-quiet ExecStart=nix-broker ExecStart=$out/bin/nix-broker \
      --replace-quiet ExecReload=nix-broker ExecReload=$out/bin/nix-broker \
      --replace-quiet /usr/share/doc $out/share/doc
    cp systemd/tmpfiles.conf $out/lib/tmpfiles.d/nix-broker.conf
    cp systemd/sysusers.conf $out/lib/sysusers.d/nix-broker.conf
    runHook postInstall
  '';

  disallowedReferences = builtins.attrValues modules.packageSourceOverrides;

  # Native modules are what can be missing at run time: the programs of others that are not linked for this system.
  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    $out/bin/nix-broker --version
    # They would be links to the scripts if they could not be compiled.
    test ! -L $out/libexec/nix-broker/pre-build-hook
    $out/libexec/nix-broker/pre-build-hook
    (cd $out/libexec/nix-broker && ${lib.getExe nodejs_24} -e 'require("koffi").load("libc.so.6"); require("bufferutil")')
    runHook postInstallCheck
  '';

  meta = {
    inherit (package) description;
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    mainProgram = "nix-broker";
  };
}
