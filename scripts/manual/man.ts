/** Manual pages of the commands and of the configuration file. */
import { configurationSections } from "../../src/config/reference.ts";
import type { CommandModel, OptionModel } from "./model.ts";
import { escaped, heading, literal, type PageTitle, prose, seeAlso, term } from "./roff.ts";

export interface Edition {
  readonly version: string;
  readonly date: string;
}

const MAIN = "nix-broker(1)";
const CONFIGURATION = "nix-broker.toml(5)";

/** Every page by its file name. */
export function manualPages(
  commands: readonly CommandModel[],
  overview: string,
  edition: Edition,
): Map<string, string> {
  const pages = new Map<string, string>([["nix-broker.1", overviewPage(commands, overview, edition)]]);
  for (const command of commands) pages.set(`nix-broker-${command.name}.1`, commandPage(command, edition));
  pages.set("nix-broker.toml.5", configurationPage(edition));
  return pages;
}

function page(title: Omit<PageTitle, keyof Edition>, edition: Edition, parts: readonly string[]): string {
  return [heading({ ...title, ...edition }), ...parts].join("");
}

function overviewPage(commands: readonly CommandModel[], overview: string, edition: Edition): string {
  const list = commands.map(
    ({ name, summary }) => `.TP\n.BR nix\\-broker\\-${escaped(name)} (1)\n${prose(summary)}\n`,
  );
  return page(
    {
      name: "nix-broker",
      section: 1,
      summary: "hands the Nix daemon's socket to sandboxes, judging and recording each request",
    },
    edition,
    [
      ".SH SYNOPSIS\n.B nix\\-broker\n.I COMMAND\n[\\fIOPTIONS\\fR]\n",
      ".SH DESCRIPTION\n",
      `${prose("nix-broker stands between the Nix daemon and those who may use it only within limits: builds that call Nix themselves, jails, containers, users on other machines. Each request is decoded, judged by a profile, answered, denied or passed on, and recorded.")}\n`,
      `.SH COMMANDS\n${list.join("")}`,
      blocks(overview),
      `.SH FILES\n.TP\n.I /etc/nix\\-broker/config.toml\n${prose(`The configuration, see ${CONFIGURATION}.`)}\n.TP\n.I /etc/nix\\-broker/root.conf\n${prose("The part of it that the linker and the hooks read; nix-broker check-config --root-subset writes it.")}\n.TP\n.I /run/nix\\-broker\n${prose("Sockets and sandboxes.")}\n.TP\n.I /var/lib/nix\\-broker\n${prose("The audit, and the control socket.")}\n`,
      `.SH ENVIRONMENT\n.TP\n.B NIX_BROKER_CONFIG\n${prose("The configuration file, if --config does not name one.")}\n.TP\n.B NIX_BROKER_NODE\n${prose("The Node to run with.")}\n.TP\n.B NO_COLOR\n${prose("If set, audit prints no colours.")}\n`,
      seeAlso([...commands.map(({ name }) => `nix-broker-${name}(1)`), CONFIGURATION]),
    ],
  );
}

function commandPage(command: CommandModel, edition: Edition): string {
  const { name, summary, description } = command;
  return page({ name: `nix-broker-${name}`, section: 1, summary }, edition, [
    `.SH SYNOPSIS\n${[command, ...command.commands].map((one) => synopsis(one, one === command ? name : `${name} ${one.name}`)).join(".br\n")}`,
    `.SH DESCRIPTION\n${prose(description)}\n`,
    optionList(".SH OPTIONS\n", command),
    blocks(command.more),
    ...command.commands.map((sub) => subcommand(name, sub)),
    seeAlso([MAIN, CONFIGURATION]),
  ]);
}

function synopsis(command: CommandModel, name: string): string {
  return `.B nix\\-broker ${escaped(name)}\n${escaped(command.usage)}\n`;
}

function optionList(title: string, { options, arguments: given }: CommandModel): string {
  const entries = [
    ...given.map(({ name, description }) => [name, description] as const),
    ...options.map((option: OptionModel) => [option.term, option.description] as const),
  ];
  return `${title}${entries.map(([what, text]) => `.TP\n${term(what)}\n${prose(text)}\n`).join("")}`;
}

function subcommand(parent: string, command: CommandModel): string {
  const title = `.SH "${`${parent} ${command.name}`.toUpperCase().replaceAll("-", "\\-")}"\n`;
  const rest = blocks(command.more).replace(/^\.SH (.*)$/gm, ".SS $1");
  return `${title}${prose(command.description)}\n${optionList("", command)}${rest}`;
}

/** The text below a command's options: examples, exit codes, the form of JSON. */
function blocks(text: string): string {
  return text
    .split(/\n\n+/)
    .filter((block) => block !== "")
    .map((block) => {
      const [first = "", ...lines] = block.split("\n");
      if (/^Examples?[:,]/.test(first)) return `.SH EXAMPLES\n${note(first)}${literal(dedented(lines))}`;
      return sections(block);
    })
    .join("");
}

/** What an "Examples" line says besides that. */
function note(first: string): string {
  const said = first.replace(/^Examples?[:,]\s*/, "").replace(/:$/, ":");
  return said === "" ? "" : `${prose(said)}\n`;
}

/** Paragraphs; a line that begins with "Exit code" starts a section. */
function sections(block: string): string {
  const at = block.search(/^Exit codes?\b/m);
  if (at > 0) return sections(block.slice(0, at)) + sections(block.slice(at));
  const title = at === 0 ? '.SH "EXIT STATUS"\n' : /^JSON:/.test(block) ? ".SH JSON\n" : ".SH NOTES\n";
  const text = block.replace(/^JSON: /, "");
  const paragraphs = text.split(/\n(?= {2})/).map((part) => part.trim());
  return `${title}${paragraphs.map((part) => `${prose(part.replaceAll("\n", " "))}\n`).join(".br\n")}`;
}

function dedented(lines: readonly string[]): string {
  return lines.map((line) => line.replace(/^ {2}/, "")).join("\n");
}

function configurationPage(edition: Edition): string {
  const tables = configurationSections().map(({ heading: name, description, keys }) => {
    const entries = keys.map(([key, { type, default: fallback, description: text }]) => {
      const facts = [type ?? "a table", fallback === undefined ? "required" : `default: ${fallback}`];
      return `.TP\n\\fB${escaped(key)}\\fR (${prose(facts.join("; "))})\n${prose(text)}\n`;
    });
    return `.SH "${escaped(name.replaceAll("`", ""))}"\n${prose(description)}\n${entries.join("")}`;
  });
  return page({ name: "nix-broker.toml", section: 5, summary: "configuration of nix-broker" }, edition, [
    ".SH SYNOPSIS\n.I /etc/nix\\-broker/config.toml\n.br\n.I $XDG_CONFIG_HOME/nix\\-broker/config.toml\n",
    `.SH DESCRIPTION\n${prose("The configuration is a TOML file: the one that --config names, else $NIX_BROKER_CONFIG, else for an ordinary user's own broker the one in $XDG_CONFIG_HOME, else the one in /etc. Everything has a default, and an unknown key is an error. `nix-broker check-config` checks a file. `systemctl reload nix-broker` takes up the static sockets, profiles and limits of a changed one without ending sandboxes; other changes need a restart.")}\n`,
    ...tables,
    seeAlso([MAIN, "nix-broker-check-config(1)", "nix.conf(5)"]),
  ]);
}
