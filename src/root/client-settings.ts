/** What a client inside a sandbox finds in /etc/nix. */

/**
 * Every version of the lab reads this. `store`: without build users /nix/var/nix is writable inside, and a client
 * would use a store of its own. `flake-registry` as a path: nothing is fetched. Clients of 2.3 warn about the settings
 * that came after them.
 */
export const clientSettings = `# Made by nix-broker for this build.
store = daemon
substituters =
experimental-features = nix-command flakes
flake-registry = /etc/nix/registry.json
`;

/** An empty flake registry: flake names mean nothing inside. */
export const clientRegistry = `${JSON.stringify({ flakes: [], version: 2 })}\n`;
