{
  description = "Brokers the Nix daemon socket into sandboxes: recursive Nix with full purity on a stock Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      forEachSystem =
        function:
        nixpkgs.lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: function nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = final: _prev: { nix-broker = final.callPackage ./package.nix { }; };

      packages = forEachSystem (pkgs: rec {
        nix-broker = pkgs.callPackage ./package.nix { };
        default = nix-broker;
      });

      nixosModules.default = {
        imports = [ ./nixos-module ];
        nixpkgs.overlays = [ self.overlays.default ];
      };

      # Functions for Nix expressions (docs/lib.md): `nix-broker.lib.for pkgs`.
      lib.for = pkgs: import ./lib { inherit pkgs; };

      checks = forEachSystem (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        nixos = import ./nixos-module/test.nix { inherit pkgs; };
      });

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.nodejs_24
            pkgs.nixfmt
          ];
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt);
    };
}
