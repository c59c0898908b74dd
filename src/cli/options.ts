import { Option } from "commander";

/** `--config FILE`, as every command that reads the configuration has it. */
export function configOption(): Option {
  return new Option(
    "-c, --config <FILE>",
    "the configuration (default: $NIX_BROKER_CONFIG, else your own in $XDG_CONFIG_HOME/nix-broker/ or /etc/nix-broker/config.toml if they exist)",
  );
}

/** `--json`: output for programs. Its form is stable and documented. */
export function jsonOption(): Option {
  return new Option("--json", "print JSON, for programs");
}

/** Collects an option that may be given more than once. */
export function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value];
}
