# What package.nix takes from nixpkgs, in place of nixpkgs itself: enough to fetch, install, build and check it for real. The
# lab shows sandboxes /opt with Node, npm and certificates.
{ system }:
let
  inherit (builtins) mapAttrs toJSON;
  plain = import ../../lib/plain-stdenv.nix {
    inherit system;
    shell = "/bin/bash";
    path = [
      "/usr/bin"
      "/bin"
    ];
  };
  nodejs = stdenv.mkDerivation {
    name = "nodejs-24";
    buildCommand = ''
      mkdir -p $out/bin $out/lib
      cp /opt/node $out/bin/node
      cp -r /opt/npm $out/lib/npm
      printf '#!/bin/sh\nexec %s/bin/node %s/lib/npm/bin/npm-cli.js "$@"\n' $out $out > $out/bin/npm
      chmod +x $out/bin/npm
    '';
  };
  stdenv = plain // {
    cc.libc = "";
  };
  # "Compiles" by handing out what the test has compiled.
  compiler = stdenv.mkDerivation {
    name = "compiler";
    buildCommand = ''
      mkdir -p $out/bin
      cat > $out/bin/cc <<'END'
      #!/bin/sh
      for argument; do
        case $argument in
          '-DWHEN="pre"' | '-DWHEN="post"') when=''${argument#*'"'} ;;
          */*-build-hook) target=$argument ;;
        esac
      done
      cp "/opt/hooks/''${when%'"'}-build-hook" "$target"
      END
      chmod +x $out/bin/cc
    '';
  };
  stdenvNoCC = stdenv // {
    hostPlatform.node = {
      platform = "linux";
      arch = if system == "aarch64-linux" then "arm64" else "x64";
    };
  };
  lib = {
    importJSON = file: builtins.fromJSON (builtins.readFile file);
    last = list: builtins.elemAt list (builtins.length list - 1);
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    optionalAttrs = condition: attrs: if condition then attrs else { };
    filterAttrs =
      keep: attrs:
      removeAttrs attrs (
        builtins.filter (name: !(keep name attrs.${name})) (builtins.attrNames attrs)
      );
    getOutput = output: package: package.${output} or package;
    getExe = _: "${nodejs}/bin/node";
    fetchers.proxyImpureEnvVars = [
      "http_proxy"
      "https_proxy"
      "no_proxy"
    ];
    licenses.mit.spdxId = "MIT";
    fileset = {
      unions = files: files;
      toSource =
        { root, fileset }:
        let
          below =
            path: builtins.substring (builtins.stringLength (toString root)) (-1) (toString path);
        in
        stdenv.mkDerivation {
          name = "source";
          buildCommand = builtins.concatStringsSep "\n" (
            map (path: "mkdir -p $out${dirOf (below path)}; cp -r ${path} $out${below path}") fileset
          );
        };
    };
  };

  # As in nixpkgs: both files name a tarball in the store for each module.
  importNpmLock = {
    npmConfigHook = null;
    __functor =
      _:
      {
        package,
        packageLock,
        packageSourceOverrides,
      }:
      let
        tarball = path: "file:${packageSourceOverrides.${path}}";
        resolve = mapAttrs (name: _: tarball "node_modules/${name}");
      in
      stdenv.mkDerivation {
        name = "npm-sources";
        passAsFile = [
          "package"
          "lock"
        ];
        package = toJSON (
          package
          // {
            dependencies = resolve package.dependencies;
            devDependencies = resolve package.devDependencies;
          }
        );
        lock = toJSON (
          packageLock
          // {
            packages = mapAttrs (
              path: module: if path == "" then module else module // { resolved = tarball path; }
            ) packageLock.packages;
          }
        );
        buildCommand = ''
          mkdir $out
          cp $packagePath $out/package.json
          cp $lockPath $out/package-lock.json
        '';
      };
  };

  buildNpmPackage =
    given:
    stdenv.mkDerivation (
      removeAttrs given [ "nodejs" ]
      // {
        nativeBuildInputs = [
          nodejs
          compiler
        ];
        # What nixpkgs' hooks do before the build.
        postPatch = ''
          substituteInPlace() {
            source ${./substitute-in-place.sh} "$@"
          }
          export HOME=$TMPDIR
          npm config set offline true
          cp --no-preserve=mode $npmDeps/*.json .
          npm install --ignore-scripts $npmFlags
          npm rebuild $npmFlags
        '';
        installPhase = given.installPhase + given.installCheckPhase;
      }
    );
in
import ../../package.nix {
  inherit
    lib
    stdenv
    stdenvNoCC
    importNpmLock
    buildNpmPackage
    ;
  cacert = stdenv.mkDerivation {
    name = "cacert";
    buildCommand = ''
      mkdir -p $out/etc/ssl/certs
      cp /opt/certificates.pem $out/etc/ssl/certs/ca-bundle.crt
    '';
  };
  nodejs_24 = nodejs;
}
