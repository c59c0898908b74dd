# An outer derivation that runs nix-build inside, and whose outputs are what that built.
{
  stdenv,
  nix,
  setupHook,
  handOn,
  expression,
}:
argumentsOf:
stdenv.mkDerivation (
  final:
  let
    given = if builtins.isFunction argumentsOf then argumentsOf final else argumentsOf;
    surroundings = builtins.intersectAttrs (builtins.functionArgs handOn) given;
    own = [
      "file"
      "attribute"
      "arguments"
      "installAs"
    ];
    installAs = given.installAs or "link";
    arguments = given.arguments or { };
    known = [
      "link"
      "tree"
      "copy"
    ];
  in
  if !builtins.elem installAs known then
    throw "nix-broker: installAs is \"${toString installAs}\"; it has to be one of ${builtins.concatStringsSep ", " known}"
  else if given ? source && !(given ? src) then
    throw "nix-broker: the sources of an outer build are named src, as in nixpkgs, not source"
  else
    {
      # Nothing of the result is left to be fixed, and a link leads to what cannot be written.
      dontFixup = installAs != "copy";
      dontConfigure = true;
      dontUnpack = !(given ? src);
      buildPhase = ''
        runHook preBuild
        nixBrokerBuild
        runHook postBuild
      '';
      installPhase = ''
        runHook preInstall
        nixBrokerInstall
        runHook postInstall
      '';
    }
    // removeAttrs given (own ++ builtins.attrNames surroundings)
    // handOn surroundings
    // {
      outputs = given.outputs or [ "out" ];
      nativeBuildInputs =
        (given.nativeBuildInputs or [ ]) ++ [ setupHook ] ++ (if nix == null then [ ] else [ nix ]);
      requiredSystemFeatures = (given.requiredSystemFeatures or [ ]) ++ [ "nix-broker" ];
      # A remote builder does not have the derivation; inner builds may still go to one.
      preferLocalBuild = true;
      nixBrokerFile =
        let
          file = given.file or ".";
        in
        if builtins.isPath file then "${file}" else file;
      nixBrokerAttribute = given.attribute or null;
      nixBrokerArguments =
        if arguments == { } then null else expression.print "arguments" arguments;
      nixBrokerArgumentNames = builtins.attrNames arguments;
      nixBrokerInstallAs = installAs;
    }
)
