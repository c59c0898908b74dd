{ recursiveBuild, greeter }:
recursiveBuild {
  name = "report";
  src = ./upstream/report;
  attribute = "report";
  # Inside, <nixpkgs> has these.
  config.greeting = "Welcome";
  overlays = [
    ./shouting-overlay.nix
    { inherit greeter; }
  ];
  installAs = "copy";
}
