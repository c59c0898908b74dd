# A graph of derivations of the shape that nixpkgs has: a fetched bootstrap archive at the bottom, the stages of a standard
# environment on it, packages that are fetched, some by weak hashes, with several outputs, structured attributes, system
# features and variables of the daemon. Nothing in it can be fetched: what is to be "there" is invented (package-graph.ts).
{
  packages ? 100,
  # Makes everything but the fetched files another derivation than with another salt.
  salt ? "a",
  system ? builtins.currentSystem,
}:
let
  mk = name: attributes:
    derivation ({
      inherit name system salt;
      builder = "/bin/sh";
      PATH = "/usr/bin:/bin";
      args = [ "-c" "for o in \${outputs:-out}; do eval p=\\$$o; mkdir $p; echo ${name} > $p/name; done; :" ];
    } // attributes);

  # As nixpkgs' bootstrap files are fetched; nobody serves them.
  bootstrapArchive = import <nix/fetchurl.nix> {
    url = "http://tarballs.invalid/bootstrap-tools.tar.xz";
    sha256 = builtins.hashString "sha256" "bootstrap-tools";
  };
  bootstrapTools = mk "bootstrap-tools" { archive = bootstrapArchive; };

  # Files of the tree itself.
  setup = builtins.toFile "setup.sh" "runHook() { :; }\n";
  stage = tools: n: mk "stdenv-stage-${toString n}" { inherit setup tools; defaultNativeBuildInputs = [ tools ]; };
  stdenv = builtins.foldl' stage bootstrapTools [ 0 1 2 3 4 ];
  curl = mk "curl" { inherit stdenv; };

  hash = algorithm: name: {
    outputHashAlgo = algorithm;
    outputHashMode = "flat";
    outputHash = builtins.hashString algorithm name;
  };
  fetch = i: name:
    mk name ({
      inherit stdenv curl;
      nativeBuildInputs = [ curl ];
      urls = [ "http://tarballs.invalid/${name}" "mirror://gnu/${name}" ];
      preferLocalBuild = true;
      impureEnvVars = [ "http_proxy" "https_proxy" "NIX_CURL_FLAGS" "NIX_HASHED_MIRRORS" "NIX_MIRRORS_gnu" ]
        ++ (if modulo i 9 == 0 then [ "GOPROXY" ] else [ ]);
    } // hash (if modulo i 11 == 3 then "md5" else if modulo i 11 == 5 then "sha1" else "sha256") name);

  modulo = a: b: a - b * (a / b);
  when = condition: attributes: if condition then attributes else { };
  package = all: i:
    let
      name = "package-${toString i}";
      inputs = if i == 0 then [ ] else map (builtins.elemAt all) (unique [ (i - 1) (i / 2) (i / 3) ]);
      common = {
        inherit stdenv;
        src = fetch i "${name}.tar.gz";
        patches = [ (builtins.toFile "${name}.patch" "--- ${name}\n") ];
        buildInputs = map (p: p.dev or p) inputs;
        propagatedBuildInputs = if i == 0 then [ ] else [ (builtins.elemAt all (i / 2)) ];
      };
    in
    mk name (common
      // when (modulo i 3 == 0) { outputs = [ "out" "dev" "man" ]; }
      // when (modulo i 7 == 2) { outputs = [ "bin" "out" ]; }
      // when (modulo i 20 == 9) { requiredSystemFeatures = [ "big-parallel" ]; }
      // when (modulo i 20 == 19) { requiredSystemFeatures = [ "benchmark" ]; }
      // when (modulo i 10 == 4) {
        __structuredAttrs = true;
        flags = { enable = true; list = [ 1 2 { deep = null; } ]; };
        args = [ "-c" ". ./.attrs.sh; for o in \${!outputs[@]}; do p=\${outputs[$o]}; mkdir $p; echo ${name} > $p/name; done; :" ];
        builder = "/bin/bash";
      }
      // when (modulo i 6 == 1) { allowedReferences = [ ]; passAsFile = [ "text" ]; text = name; });

  unique = builtins.foldl' (seen: x: if builtins.elem x seen then seen else seen ++ [ x ]) [ ];
  # Each is forced before the next: evaluation must not be as deep as the graph.
  all = builtins.foldl' (made: i: let p = package made i; in builtins.seq p.drvPath (made ++ [ p ])) [ ] (builtins.genList (i: i) packages);
  last = builtins.elemAt all (packages - 1);
in
{
  inherit bootstrapArchive bootstrapTools stdenv curl all last;
  # What somebody works on: a derivation of their own above a package.
  mine = mk "mine" { inherit last; args = [ "-c" "cat $last/name > $out; :" ]; };
  # A shell's derivation, as `nix develop` and nix-shell make of it.
  shell = mk "shell" { inherit stdenv; buildInputs = [ last ]; };
}
