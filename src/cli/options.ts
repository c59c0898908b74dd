import { Option } from "commander";

/** `--config FILE`, as every command that reads the configuration has it. */
export const configOption = (): Option =>
  new Option(
    "-c, --config <FILE>",
    "the configuration (default: $NIX_BROKER_CONFIG, else /etc/nix-broker/config.toml if it exists)",
  );

/** `--json`: output for programs. Its form is stable and documented. */
export const jsonOption = (): Option => new Option("--json", "print JSON, for programs");

/** Collects an option that may be given more than once. */
export const collect = (value: string, previous: readonly string[] | undefined): readonly string[] => [
  ...(previous ?? []),
  value,
];
