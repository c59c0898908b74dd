# Made from src/config/schema.ts by `npm run docs`. A test fails when it is stale: change the schema.
# The keys of the configuration file, as options of `services.nix-broker.settings`. What is null is left out of the file.
{ lib }:
let
  inherit (lib) mkOption types;
  key =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
in
{
  upstream = {
    socket = key types.path ''
      Its Unix socket. Default: `"/nix/var/nix/daemon-socket/socket"`.
    '';
    command = key (types.listOf types.str) ''
      A command with its arguments, to be run for every upstream connection instead, e.g. `["ssh", "builder",
      "nix-daemon", "--stdio"]`. It speaks the worker protocol on its standard input and output. Default: `[]`.
    '';
    store_dir = key types.path ''
      The store's folder. Must be the same as upstream's. Default: `"/nix/store"`.
    '';
    nix_store = key types.str ''
      The command with which the post-build hook registers references. Default: `"nix-store"`.
    '';
    allow_trusted = key types.bool ''
      Accept an upstream that trusts the broker's user. For a private single-user daemon only: anywhere else this
      gives up a line of defence. Default: `false`.
    '';
    pool = key (types.ints.between 0 64) ''
      How many fresh upstream connections are kept ready. Default: `4`.
    '';
  };
  runtime = {
    dir = key types.path ''
      The folder of `sandboxes/<id>/`, `shared/` and the linker's socket. It belongs to root if there are per-build
      sandboxes. Its contents are gone after a reboot. Default: `"/run/nix-broker"`.
    '';
    state_dir = key types.path ''
      For data that must survive a restart: the audit. Default: `"/var/lib/nix-broker"`.
    '';
    control_dir = key types.path ''
      The folder of the socket through which `nix-broker status`, `sandboxes` and `doctor` talk to the service. The
      service creates it, mode 0700, in a folder that it can write to. Never mount it into a sandbox. Default:
      `control` in `runtime.state_dir`.
    '';
    admin_group = key types.str ''
      A group whose members may use the control socket, besides root and the service's user, which must be a member
      as well. They must be able to enter the folders above it. Default: no group.
    '';
    user = key types.str ''
      The system user that the service runs as; the root programs create its folders. Default: `"nix-broker"`.
    '';
    memory = key (types.either types.ints.unsigned types.str) ''
      How much memory requests, the texts and derivations in them, and what is parsed of them may take together.
      What would exceed it waits for its turn, sandbox by sandbox; requests of less than 64 KiB do not wait. The
      service takes about 250 MiB besides. Default: `"256 MiB"`.
    '';
    stop_grace = key (types.either types.ints.unsigned types.str) ''
      How long a graceful stop waits for requests in flight. Default: `"30 s"`.
    '';
  };
  listen = mkOption {
    default = [ ];
    description = ''
      Static sockets, one table each. None are opened unless named here or by `--listen`. Each is one sandbox that
      lives as long as the service.
    '';
    type = types.listOf (
      types.submodule {
        options = {
          path = mkOption {
            type = types.path;
            description = ''
              The Unix socket to open. Mount its folder into sandboxes, not the socket itself.
            '';
          };
          profile = key types.str ''
            What its clients may do: a built-in profile or one of `[profiles]`. Default: `"build"`.
          '';
          view = key (types.either (types.enum [ "empty" "store" "build" ]) (types.listOf types.path)) ''
            Where the view starts: `"empty"`, the closures of a list of store paths, or `"store"`: everything valid, for
            jails that mount the whole store anyway (the closed-world guarantee does not apply then). `"build"`: each
            client is a process in some build, and gets the sandbox of that build. Default: that of the profile.
          '';
          allow_uids = key (types.listOf types.str) ''
            Who may connect: users, `@groups` or numbers; `["*"]` is anyone who reaches the socket. Default:
            `["@nixbld"]`.
          '';
        };
      }
    );
  };
  jails = mkOption {
    default = { };
    description = ''
      Named jails (docs/sandboxes.md): each has a socket of its own, `shared/jails/NAME/socket` in `runtime.dir`,
      sees the whole store, and keeps what it built from the garbage collector until it is ended, across restarts of
      the service. Its folder in `runtime.state_dir` is `jails/NAME`. A jail that is no longer named here is ended.
    '';
    type = types.attrsOf (
      types.submodule {
        options = {
          allow_uids = mkOption {
            type = types.listOf types.str;
            description = ''
              Who may use it: users, `@groups` or numbers; `["*"]` is anyone who reaches the socket.
            '';
          };
          profile = key types.str ''
            What its clients may do, what may be fetched for them (`fixed_outputs`) and how much (`limits`): a built-in
            profile or one of `[profiles]`. Default: `"agent"`.
          '';
          lifetime = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
            How long after its beginning it is ended, as by `nix-broker sandboxes end`. Then a new one begins. Default:
            `"unlimited"`.
          '';
        };
      }
    );
  };
  hooks = {
    profile = key types.str ''
      The profile of per-build sandboxes. Default: `"build"`.
    '';
    allow_uids = key (types.listOf types.str) ''
      The build users: only these, and those that Nix allocates itself (`auto-allocate-uids`), may use the socket of
      a build. Default: `["@nixbld"]`.
    '';
    build_users = key (types.ints.between 1 1000000) ''
      The maximum number of builds that Nix runs at once. One build user is kept free for inner builds, because
      outer builds could otherwise wait for each other forever. Default: the number of `hooks.allow_uids`.
    '';
    gcroots_dir = key types.path ''
      The folder of the roots of per-build sandboxes. Root's programs create it. Default:
      `"/nix/var/nix/gcroots/nix-broker"`.
    '';
    next_pre_build_hook = key types.str ''
      A program to run after nix-broker's hook, for installations that have a hook of their own. Default: `""`.
    '';
    next_post_build_hook = key types.str ''
      The same for the post-build hook. Default: `""`.
    '';
  };
  limits = {
    text_bytes = key (types.either types.ints.unsigned types.str) ''
      The longest derivation or text that a client may add. These are held in memory, because they are judged before
      upstream sees them. Default: `"16 MiB"`.
    '';
    request_bytes = key (types.either types.ints.unsigned types.str) ''
      The longest request, not counting bulk bodies. A longer one ends the connection. Default: `"32 MiB"`.
    '';
    body_bytes = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      The longest bulk body (the contents of a path being added) of one request. Bodies are streamed, never held in
      memory. Default: `"16 GiB"`.
    '';
    bytes_added = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      How much a sandbox may add to the store in total. Beyond that, requests that add are denied. Default: `"64
      GiB"`.
    '';
    view_paths = key types.ints.unsigned ''
      How many paths the view of a sandbox may hold. Beyond that, requests that would make it grow are denied.
      Default: `1000000`.
    '';
    connections = key types.ints.unsigned ''
      How many connections a sandbox may have at once. Further ones are closed with an error. Default: `64`.
    '';
    concurrent_builds = key types.ints.unsigned ''
      How many build requests of a sandbox may be in progress at once. Further ones are denied. Default: `32`.
    '';
    build_targets = key types.ints.unsigned ''
      How many paths and outputs one build request may name. One that names more is denied. Default: `10000`.
    '';
    builds = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
      How many build requests a sandbox may make in total. Further ones are denied. Default: `100000`.
    '';
    build_rate = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
      How many build requests a sandbox may make within a minute. Further ones are denied. Default: `6000`.
    '';
    depth = key types.ints.unsigned ''
      How deep sandboxes may be nested: the sandbox of an outer build has depth 1, that of an inner build that opts
      in has depth 2. Default: `4`.
    '';
    build_timeout = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      How long one inner build may take. A client may ask for less, not for more. Default: `"1 d"`.
    '';
    silent_timeout = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      How long an inner build may go without printing anything. A client may ask for less, not for more. Default:
      `"unlimited"`.
    '';
    gc_roots = key types.ints.unsigned ''
      How many roots of the garbage collector a jail may have made (`nix-broker jail`, `[jails.NAME]`): results that
      are kept until it ends, and links. Beyond that, requests that need one are denied. Default: `10000`.
    '';
    request_deadline = key (types.either types.ints.unsigned types.str) ''
      How long upstream may make no progress on a forwarded request other than a build, or on the broker's own
      requests. Then the client gets an error. Default: `"10 min"`.
    '';
    idle = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      How long a connection may stay open without a request. Then it is closed. Default: `"unlimited"`.
    '';
    audit_rows = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
      How many audit records a sandbox may cause. Repeated requests share a record; one that names many paths counts
      as several. Beyond that, every request is denied. Default: `10000000`.
    '';
    log_bytes = key (types.either types.ints.unsigned types.str) ''
      How much log output is kept for a client that does not read it. Beyond that, lines are dropped and counted.
      Default: `"1 MiB"`.
    '';
  };
  profiles = mkOption {
    default = { };
    description = ''
      Profiles of your own, next to the built-in `query`, `instantiate`, `pure`, `build` and `agent`. `nix-broker
      policy --profile NAME` prints the resulting profile.
    '';
    type = types.attrsOf (
      types.submodule {
        options = {
          extends = mkOption {
            type = types.str;
            description = ''
              The profile that this one starts from. Keys that are not set here have its values.
            '';
          };
          summary = key types.str ''
            One sentence for `nix-broker policy`. Default: one that names the profile it extends.
          '';
          operations = key (types.listOf (types.enum [ "query" "read" "add" "build" ])) ''
            The groups of operations that are permitted: `query` asks about paths, `read` gets their contents over the
            connection, `add` adds paths and derivations, `build` builds. Default: as extended.
          '';
          fixed_outputs = key (types.either (types.enum [ "deny" "known" "allow" ]) (types.listOf types.str)) ''
            Fixed-output derivations, which have network access: `"deny"`, `"known"` (only if the output is in the view),
            `"allow"`, or a list of URL patterns (`https://example.org/*`): as with `known`, and in addition what
            nix-broker fetches itself: files that are downloaded by http or https, and unpacked, if every URL on the way
            matches. `"@forges"` stands for well-known hosts of source code (docs/fetching.md). Default: as extended.
          '';
          admit_fixed_outputs = key types.bool ''
            Whether a fixed-output path that upstream already has enters the view when a client names it, or asks for its
            derivation. Clients can then find out whether upstream has given contents under a given name, including
            sources, but nothing about other paths. Default: as extended.
          '';
          systems = key (types.either (types.enum [ "any" ]) (types.listOf types.str)) ''
            The values of `system` that inner derivations may have. Default: as extended.
          '';
          required_system_features = key (types.listOf types.str) ''
            What inner derivations may have in `requiredSystemFeatures`. `recursive-nix`, `builder-rpc-v0`, `uid-range`
            can never be allowed. Default: as extended.
          '';
          impure_env_vars = key (types.listOf types.str) ''
            The daemon's environment variables that fixed-output derivations may use (`impureEnvVars`). Those that usually
            hold secrets, such as `NIX_NPM_TOKENS`, are passed to builds only if they are named here in full: the builder
            can send them anywhere. Default: as extended.
          '';
          weak_hashes = key types.bool ''
            Whether fixed-output derivations with an md5 or sha1 hash may be built. If their output already exists, they
            need not be built, and this does not matter. Default: as extended.
          '';
          substitute = key types.bool ''
            With the view `store`: whether upstream may fetch paths from its own caches for clients, if they ask for them
            by name or a build needs them. All that a client can make upstream ask a cache for is a hash. Default: as
            extended.
          '';
          inner_logs = key (types.enum [ "lines" "none" ]) ''
            Whether clients get the log lines of inner builds. With `"none"` they cannot tell a build from a cache hit.
            Default: as extended.
          '';
          content_addressed = key types.bool ''
            Whether inner derivations may have floating content-addressed outputs. Default: as extended.
          '';
          view = key (types.either (types.enum [ "empty" "store" ]) (types.listOf types.path)) ''
            Where the view of a static socket starts if the socket does not set it. Default: as extended.
          '';
          limits = {
            text_bytes = key (types.either types.ints.unsigned types.str) ''
              The longest derivation or text that a client may add. These are held in memory, because they are judged before
              upstream sees them. Default: as extended.
            '';
            request_bytes = key (types.either types.ints.unsigned types.str) ''
              The longest request, not counting bulk bodies. A longer one ends the connection. Default: as extended.
            '';
            body_bytes = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
              The longest bulk body (the contents of a path being added) of one request. Bodies are streamed, never held in
              memory. Default: as extended.
            '';
            bytes_added = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
              How much a sandbox may add to the store in total. Beyond that, requests that add are denied. Default: as
              extended.
            '';
            view_paths = key types.ints.unsigned ''
              How many paths the view of a sandbox may hold. Beyond that, requests that would make it grow are denied.
              Default: as extended.
            '';
            connections = key types.ints.unsigned ''
              How many connections a sandbox may have at once. Further ones are closed with an error. Default: as extended.
            '';
            concurrent_builds = key types.ints.unsigned ''
              How many build requests of a sandbox may be in progress at once. Further ones are denied. Default: as
              extended.
            '';
            build_targets = key types.ints.unsigned ''
              How many paths and outputs one build request may name. One that names more is denied. Default: as extended.
            '';
            builds = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
              How many build requests a sandbox may make in total. Further ones are denied. Default: as extended.
            '';
            build_rate = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
              How many build requests a sandbox may make within a minute. Further ones are denied. Default: as extended.
            '';
            depth = key types.ints.unsigned ''
              How deep sandboxes may be nested: the sandbox of an outer build has depth 1, that of an inner build that opts
              in has depth 2. Default: as extended.
            '';
            build_timeout = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
              How long one inner build may take. A client may ask for less, not for more. Default: as extended.
            '';
            silent_timeout = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
              How long an inner build may go without printing anything. A client may ask for less, not for more. Default: as
              extended.
            '';
            gc_roots = key types.ints.unsigned ''
              How many roots of the garbage collector a jail may have made (`nix-broker jail`, `[jails.NAME]`): results that
              are kept until it ends, and links. Beyond that, requests that need one are denied. Default: as extended.
            '';
            request_deadline = key (types.either types.ints.unsigned types.str) ''
              How long upstream may make no progress on a forwarded request other than a build, or on the broker's own
              requests. Then the client gets an error. Default: as extended.
            '';
            idle = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
              How long a connection may stay open without a request. Then it is closed. Default: as extended.
            '';
            audit_rows = key (types.either types.ints.unsigned (types.enum [ "unlimited" ])) ''
              How many audit records a sandbox may cause. Repeated requests share a record; one that names many paths counts
              as several. Beyond that, every request is denied. Default: as extended.
            '';
            log_bytes = key (types.either types.ints.unsigned types.str) ''
              How much log output is kept for a client that does not read it. Beyond that, lines are dropped and counted.
              Default: as extended.
            '';
          };
        };
      }
    );
  };
  fetch = {
    private_hosts = key (types.listOf types.str) ''
      Hosts, as URLs name them, that may have addresses of this machine, of the networks that it is in, or of
      private networks. Everybody with a pattern that matches can then reach them. Default: `[]`.
    '';
  };
  audit = {
    path = key types.path ''
      The folder of its databases. Default: `audit` in `runtime.state_dir`.
    '';
    json_lines = key types.bool ''
      Also write every record to the service's log as a JSON line. Default: `false`.
    '';
    retention_days = key (types.either (types.ints.between 1 36500) (types.enum [ "unlimited" ])) ''
      How many days records are kept before they are removed. Default: `90`.
    '';
    max_bytes = key (types.either (types.either types.ints.unsigned types.str) (types.enum [ "unlimited" ])) ''
      How large all databases together may become before the oldest records are removed. Default: `"16 GiB"`.
    '';
  };
  metrics = {
    listen = key (types.either types.port types.str) ''
      Where metrics are served. Never reachable from other machines. Default: nothing listens.
    '';
    token_file = key types.path ''
      A file with the token that a scraper must send. Required on a port, because builds with network access can
      reach it; a Unix socket is protected by its file mode. Default: no token.
    '';
  };
  web = {
    listen = key (types.either types.port types.str) ''
      Where the page is served. Never reachable from other machines. Default: nothing listens.
    '';
    token_file = key types.path ''
      A file with the token that a browser must send. Created at the first start if it does not exist. Default:
      `web-token` in `runtime.state_dir`.
    '';
  };
  log = {
    level = key (types.enum [ "fatal" "error" "warn" "info" "debug" "trace" ]) ''
      The least severe level that is written. The anchors of the audit always are, and its records with
      `audit.json_lines`. Default: `"info"`.
    '';
  };
}
