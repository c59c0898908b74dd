/** The sandboxes, each with its inner builds, each of those with the sandbox that it has itself. */
import { escapeText } from "../audit/escape.ts";
import { type Build, type Model, type Sandbox, sandboxName } from "./model.ts";
import { derivationName, duration, pathHash } from "./text.ts";

const MOST_BUILDS = 100;
const MOST_SANDBOXES = 150;

interface TreeProps {
  readonly model: Model;
  /** The id of a sandbox. */
  readonly chosen: string | undefined;
  readonly now: number;
}

/** A sandbox, with what runs in it. */
interface Branch {
  readonly sandbox: Sandbox;
  /** What it is the sandbox of, if that was asked for by name. */
  readonly build: Build | undefined;
  readonly inner: readonly (Build | Branch)[];
  /** Builds that are not shown: there are too many. */
  readonly omitted: number;
}

export function Tree({ model, chosen, now }: TreeProps) {
  const branches = branchesOf(model);
  return (
    <div id="tree" class="scroll" role="tree" aria-label="Sandboxes" tabIndex={0}>
      {branches.length === 0 && (
        <p class="empty">No sandbox yet. A build that asks for nix-broker gets one.</p>
      )}
      {branches.map((branch) => (
        <BranchRows key={branch.sandbox.id} branch={branch} chosen={chosen} now={now} />
      ))}
    </div>
  );
}

/** Those that run come first, the newest of them above. */
function branchesOf({ sandboxes }: Model): Branch[] {
  const all = [...sandboxes.values()];
  const isNested = ({ parent }: Sandbox): boolean => parent !== undefined && sandboxes.has(parent);
  const nested = new Map<string, Sandbox[]>();
  for (const sandbox of all.filter(isNested)) {
    const siblings = nested.get(sandbox.parent ?? "");
    if (siblings === undefined) nested.set(sandbox.parent ?? "", [sandbox]);
    else siblings.push(sandbox);
  }
  const seen = new Set<string>();
  return all
    .filter((sandbox) => !isNested(sandbox))
    .sort((a, b) => Number(a.ended !== undefined) - Number(b.ended !== undefined) || b.began - a.began)
    .slice(0, MOST_SANDBOXES)
    .map((root) => branchOf(root, undefined, nested, seen));
}

function branchOf(
  sandbox: Sandbox,
  build: Build | undefined,
  nested: ReadonlyMap<string, Sandbox[]>,
  seen: Set<string>,
): Branch {
  seen.add(sandbox.id);
  const children = new Set((nested.get(sandbox.id) ?? []).filter(({ id }) => !seen.has(id)));
  const builds = sandbox.builds.slice(-MOST_BUILDS).map((each) => {
    const own = [...children].find(({ outer }) => outer === each.derivation);
    if (own === undefined) return each;
    children.delete(own);
    return branchOf(own, each, nested, seen);
  });
  const others = [...children].map((child) => branchOf(child, undefined, nested, seen));
  return {
    sandbox,
    build,
    inner: [...builds, ...others],
    omitted: sandbox.builds.length - builds.length,
  };
}

interface BranchProps {
  readonly branch: Branch;
  readonly chosen: string | undefined;
  readonly now: number;
}

function BranchRows({ branch: { sandbox, build, inner, omitted }, chosen, now }: BranchProps) {
  const name = escapeText(sandbox.outer ?? sandbox.socket ?? sandbox.id);
  const ended = sandbox.ended === undefined ? "open" : "ended";
  const usage = sandbox.usage === undefined ? "" : `\n${sandbox.usage}`;
  const reason = sandbox.reason === undefined ? "" : `\n${escapeText(sandbox.reason)}`;
  return (
    <div class="branch">
      <button
        type="button"
        class={sandbox.id === chosen ? "node sandbox chosen" : "node sandbox"}
        role="treeitem"
        data-sandbox={sandbox.id}
        data-state={build?.state ?? ended}
        title={`${name}\nsandbox ${sandbox.id}${usage}${reason}`}
      >
        <span class="state" />
        <b>{escapeText(sandboxName(sandbox))}</b>
        <i>{escapeText(pathHash(sandbox.outer ?? "") || sandbox.profile)}</i>
        {sandbox.denied > 0 && <span class="denied">{sandbox.denied} denied</span>}
        <span class="took">{duration((sandbox.ended ?? now) - sandbox.began)}</span>
      </button>
      <div class="inner">
        {omitted > 0 && <p class="note">{omitted} earlier builds</p>}
        {inner.map((each) =>
          "inner" in each ? (
            <BranchRows key={each.sandbox.id} branch={each} chosen={chosen} now={now} />
          ) : (
            <BuildRow key={`${each.intent} ${each.derivation}`} build={each} now={now} />
          ),
        )}
      </div>
    </div>
  );
}

function BuildRow({ build, now }: { readonly build: Build; readonly now: number }) {
  return (
    <div class="node build" data-state={build.state} title={escapeText(build.derivation)}>
      <span class="state" />
      <span>{escapeText(derivationName(build.derivation))}</span>
      <i>{escapeText(pathHash(build.derivation))}</i>
      <span class="took">{duration(build.took ?? now - build.started)}</span>
    </div>
  );
}
