# A NixOS machine with the module: a nested build, a refusal, and what the audit says of them.
{
  pkgs ? import <nixpkgs> { },
}:
let
  # Everything that builds need is in the machine's store already: it has no network.
  inputs = { inherit (pkgs) bash coreutils nix; };
  arguments = pkgs.lib.concatStringsSep " " (
    pkgs.lib.mapAttrsToList (name: package: "--argstr ${name} ${package}") inputs
  );
in
pkgs.testers.runNixOSTest {
  name = "nix-broker";
  nodes.machine = {
    imports = [ ./. ];
    services.nix-broker.enable = true;
    virtualisation.additionalPaths = builtins.attrValues inputs;
    nix.settings.substituters = pkgs.lib.mkForce [ ];
    users.users.alice.isNormalUser = true;
  };
  testScript = ''
    machine.wait_for_unit("nix-broker.service")
    machine.wait_for_unit("nix-broker-linker.service")

    out = machine.succeed("su - alice -c 'nix-build --no-out-link ${./nested-build.nix} ${arguments}'").strip()
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
