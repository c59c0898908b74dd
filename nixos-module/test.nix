# A NixOS machine with the module: a nested build, a refusal, and what the audit says of them.
{
  pkgs ? import <nixpkgs> { },
}:
let
  # Everything that builds need is in the machine's store already: it has no network.
  outer = pkgs.writeText "outer.nix" ''
    derivation {
      name = "outer";
      system = builtins.currentSystem;
      builder = "${pkgs.bash}/bin/bash";
      PATH = "${pkgs.coreutils}/bin:${pkgs.nix}/bin";
      requiredSystemFeatures = [ "nix-broker" ];
      inner = '''
        derivation {
          name = "inner";
          system = builtins.currentSystem;
          builder = "/bin/sh";
          args = [ "-c" "echo built inside > $out" ];
        }
      ''';
      args = [
        "-e"
        "-c"
        '''
          export HOME=$PWD/home; mkdir -p $HOME
          echo "$inner" > inner.nix
          result=$(nix-build --no-out-link inner.nix)
          cat $result
          if nix-store --gc; then exit 1; fi
          echo $result > $out
        '''
      ];
    }
  '';
in
pkgs.testers.runNixOSTest {
  name = "nix-broker";
  nodes.machine = {
    imports = [ ./. ];
    services.nix-broker.enable = true;
    virtualisation.additionalPaths = [
      pkgs.bash
      pkgs.coreutils
      pkgs.nix
    ];
    nix.settings.substituters = pkgs.lib.mkForce [ ];
    users.users.alice.isNormalUser = true;
  };
  testScript = ''
    machine.wait_for_unit("nix-broker.service")
    machine.wait_for_unit("nix-broker-linker.service")

    out = machine.succeed("su - alice -c 'nix-build --no-out-link ${outer}'").strip()
    inner = machine.succeed(f"cat {out}").strip()
    assert machine.succeed(f"cat {inner}") == "built inside\n"
    assert inner in machine.succeed(f"nix-store -q --references {out}")

    denied = machine.succeed("nix-broker audit --verdict deny")
    assert "CollectGarbage" in denied, denied

    machine.succeed("nix-collect-garbage")
    machine.succeed("systemctl restart nix-broker.service nix-broker-linker.service")
    machine.wait_for_unit("nix-broker.service")
  '';
}
