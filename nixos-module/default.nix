# NixOS: services.nix-broker. docs/nixos.md tells how to use it.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib)
    any
    concatMap
    elem
    filterAttrs
    hasInfix
    hasPrefix
    isList
    isString
    mkDefault
    mkEnableOption
    mkIf
    mkMerge
    mkOption
    mkOverride
    optional
    optionalAttrs
    types
    ;

  cfg = config.services.nix-broker;
  toml = pkgs.formats.toml { };
  settingsOptions = import ./settings.nix { inherit lib; };
  user = "nix-broker";
  sharedFolder = "/run/nix-broker/shared";
  libexec = "${cfg.package}/libexec/nix-broker";

  # What is not set is left out of the file, so that the broker's own default holds.
  withoutNulls =
    value:
    if isList value then
      map withoutNulls value
    else if builtins.isAttrs value then
      filterAttrs (_: inner: inner != null && inner != { }) (builtins.mapAttrs (_: withoutNulls) value)
    else
      value;
  settings = withoutNulls cfg.settings;
  configFile = toml.generate "nix-broker.toml" settings;

  # Made when the system is built, so a configuration that the broker would not take does not get that far.
  rootConfig = pkgs.runCommand "nix-broker-root.conf" { } ''
    ${cfg.package}/bin/nix-broker check-config --config ${configFile} --root-subset > $out
  '';

  # Nix has room for one program in each hook. What others defined, merged as if ours were not there, is run after ours.
  hookOfOthers =
    name:
    let
      isOurs = value: (value.content or value) == ourHooks.${name};
      others = builtins.filter (definition: !(isOurs definition.value)) (
        concatMap (
          { file, value }:
          optional (value ? ${name}) {
            inherit file;
            value = value.${name};
          }
        ) options.nix.settings.definitionsWithLocations
      );
      merged = lib.modules.mergeDefinitions [
        "nix"
        "settings"
        name
      ] (types.nullOr (types.either types.path types.str)) others;
    in
    if merged.isDefined && merged.mergedValue != null then toString merged.mergedValue else "";
  ourHooks = {
    pre-build-hook = "${libexec}/pre-build-hook";
    post-build-hook = "${libexec}/post-build-hook";
  };

  credential = name: "/run/credentials/nix-broker.service/${name}";
  # A path literal would be copied into the store, too.
  isSecret = file: file == null || (isString file && !hasPrefix builtins.storeDir file);

  endpoint =
    name: example:
    {
      listen = mkOption {
        type = types.nullOr (types.either types.port types.str);
        default = null;
        inherit example;
        description = ''
          Where the ${name} is served: a port of this machine's loopback, or the path of a Unix socket. Never reachable
          from other machines. With `null`, nothing listens.
        '';
      };
      tokenFile = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = "/var/keys/nix-broker-${name}";
        description = ''
          A file with the token that clients have to send. Root reads it and hands it to the service as a credential,
          so the service's user needs no access to it. A string, for a path literal would be copied into the Nix store,
          which everybody may read. Without one, a token for the page is made at the first start
          (`/var/lib/nix-broker/web-token`); metrics on a port need one.
        '';
      };
    };

  sandbox = config.nix.settings.sandbox or true;
  trusted = config.nix.settings.trusted-users or [ ];
  profiles = builtins.attrValues (settings.profiles or { });
  machines = config.nix.buildMachines or [ ];
in
{
  options.services.nix-broker = {
    enable = mkEnableOption "nix-broker, which lets builds call Nix without giving them the Nix daemon";

    package = mkOption {
      type = types.package;
      default = pkgs.nix-broker or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.nix-broker";
      description = "The package to use.";
    };

    perBuild.enable = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether a build with `requiredSystemFeatures = [ "nix-broker" ]` gets a sandbox of its own: a Nix daemon that
        knows the inputs of this build and what it added or built itself, and nothing else. Sets Nix's
        `pre-build-hook` and `post-build-hook`; hooks that you have are run after these.
      '';
    };

    sharedSocket.enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether all builds are shown one socket, by `extra-sandbox-paths`, instead of a mapping for each build. The broker
        finds out which build a client lives in, and serves only builds that ask for `nix-broker`. For
        installations whose `pre-build-hook` is taken.
      '';
    };

    rootUsesDaemon = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether sessions get `NIX_REMOTE=daemon`, those of root among them. Root that opens the store
        itself does not see references that are registered after a build, and its builds are refused a sandbox. Services
        that build as root, such as `nixos-upgrade`, do not get it.
      '';
    };

    audit = {
      retentionDays = mkOption {
        type = types.ints.positive;
        default = 90;
        description = "How old records of requests may become before they are removed. Days.";
      };
      journal = mkOption {
        type = types.bool;
        default = false;
        description = "Whether every record is written to the journal, too.";
      };
    };

    metrics = endpoint "metrics" 9464;
    web = endpoint "page" 9465;

    # As in the configuration file, which they become a part of.
    jails = settingsOptions.jails;

    settings = mkOption {
      default = { };
      example = lib.literalExpression ''
        {
          hooks.profile = "mirror-only";
          profiles.mirror-only = {
            extends = "build";
            fixed_outputs = [ "https://mirror.example.org/*" ];
          };
        }
      '';
      description = ''
        The configuration file (`docs/configuration.md`). It is checked when the system is built, so that a key that the
        broker does not know, or a value that it would not take, does not get further.
      '';
      type = types.submodule {
        freeformType = toml.type;
        options = settingsOptions;
      };
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = config.nix.enable;
        message = "services.nix-broker needs the Nix daemon: set nix.enable = true.";
      }
      {
        assertion = sandbox == true || sandbox == "relaxed";
        message = "services.nix-broker needs sandboxed builds, for nothing can be hidden from a build without a sandbox, or shown to it: set nix.settings.sandbox = true.";
      }
      {
        assertion =
          !(any (name: elem name trusted) [
            user
            "*"
          ])
          || (settings.upstream.allow_trusted or false);
        message = "services.nix-broker: nix.settings.trusted-users must not have \"${user}\" or \"*\". The Nix daemon refuses what an untrusted user may not do, and that is the broker's second wall.";
      }
      {
        assertion = !(any (profile: elem "uid-range" (profile.required_system_features or [ ])) profiles);
        message = "services.nix-broker: no profile can allow the system feature uid-range: a builder with it owns the root of its sandbox, and nothing can be put there safely. Remove it from required_system_features.";
      }
      {
        assertion = !(cfg.perBuild.enable && (settings.upstream.command or [ ]) != [ ]);
        message = "services.nix-broker: sandboxes of builds need the Nix daemon of this machine. Set perBuild.enable = false, or remove settings.upstream.command.";
      }
      {
        assertion =
          !(
            cfg.perBuild.enable
            && any (hook: hasInfix hook (config.nix.extraOptions or "")) (builtins.attrNames ourHooks)
          );
        message = "services.nix-broker: nix.extraOptions sets a hook, which comes after ours in nix.conf and so takes its place. Set it as nix.settings.pre-build-hook or nix.settings.post-build-hook: it is run after ours then.";
      }
      {
        assertion =
          !(any (
            machine:
            elem "nix-broker" ((machine.supportedFeatures or [ ]) ++ (machine.mandatoryFeatures or [ ]))
          ) machines);
        message = "services.nix-broker: nix.buildMachines must not have the feature nix-broker: a remote builder gets no .drv, so no hook can make a sandbox there. Use that machine as a remote store (docs/sandboxes.md).";
      }
      {
        assertion = isSecret cfg.metrics.tokenFile && isSecret cfg.web.tokenFile;
        message = "services.nix-broker: a tokenFile must not be in the Nix store, which everybody may read. Give the path as a string: \"/var/keys/token\", not /var/keys/token.";
      }
      {
        assertion = !(settings ? runtime.user || settings ? runtime.dir || settings ? runtime.state_dir);
        message = "services.nix-broker: settings.runtime.user, dir and state_dir cannot be changed here: the units and the folders are made for the ones that nix-broker has by itself.";
      }
    ];

    services.nix-broker.settings = mkMerge [
      {
        audit.retention_days = mkDefault cfg.audit.retentionDays;
        audit.json_lines = mkDefault cfg.audit.journal;
        inherit (cfg) jails;
      }
      (mkIf cfg.perBuild.enable {
        hooks.next_pre_build_hook = mkDefault (hookOfOthers "pre-build-hook");
        hooks.next_post_build_hook = mkDefault (hookOfOthers "post-build-hook");
      })
      (mkIf cfg.sharedSocket.enable {
        listen = [
          {
            path = "${sharedFolder}/socket";
            view = "build";
          }
        ];
      })
      (mkIf (cfg.metrics.listen != null) {
        metrics = {
          inherit (cfg.metrics) listen;
        }
        // optionalAttrs (cfg.metrics.tokenFile != null) { token_file = credential "metrics"; };
      })
      (mkIf (cfg.web.listen != null) {
        web = {
          inherit (cfg.web) listen;
        }
        // optionalAttrs (cfg.web.tokenFile != null) { token_file = credential "web"; };
      })
    ];

    # The "extra-" forms add to what is there; NixOS writes them after the others.
    nix.settings = mkMerge [
      { extra-allowed-users = [ user ]; }
      (mkIf cfg.perBuild.enable (
        # Stronger than mkForce, which users may have around their own.
        builtins.mapAttrs (_: mkOverride 40) ourHooks // { extra-system-features = [ "nix-broker" ]; }
      ))
      (mkIf cfg.sharedSocket.enable {
        extra-system-features = [ "nix-broker" ];
        extra-sandbox-paths = [ "/nix/var/nix/daemon-socket=${sharedFolder}" ];
      })
    ];

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      description = "Broker of the Nix daemon socket";
    };
    users.groups.${user} = { };

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      "nix-broker/config.toml".source = configFile;
      # A file, not a link: root's programs believe only files that nobody else could have put there.
      "nix-broker/root.conf" = {
        source = rootConfig;
        mode = "0444";
      };
    };
    # Not in a shell's start-up files alone, which sudo and cron do not read.
    environment.sessionVariables = mkIf cfg.rootUsesDaemon { NIX_REMOTE = "daemon"; };

    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    systemd.sockets.nix-broker = mkIf cfg.sharedSocket.enable { wantedBy = [ "sockets.target" ]; };
    systemd.services.nix-broker = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ configFile ];
      serviceConfig.LoadCredential =
        optional (cfg.metrics.tokenFile != null) "metrics:${toString cfg.metrics.tokenFile}"
        ++ optional (cfg.web.tokenFile != null) "web:${toString cfg.web.tokenFile}";
    };
    systemd.sockets.nix-broker-fetch.wantedBy = [ "sockets.target" ];
    systemd.services.nix-broker-linker = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ rootConfig ];
      path = [
        config.nix.package
        pkgs.util-linux
      ];
      # The store is a read-only mount here; the linker makes it writable in its own mount namespace.
      serviceConfig = {
        ExecStart = [
          ""
          "${cfg.package}/bin/nix-broker linker --remount-store"
        ];
        CapabilityBoundingSet = "CAP_SYS_ADMIN";
        SystemCallFilter = "@mount";
      };
    };
  };
}
