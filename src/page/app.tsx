/** The whole page. */
import { Fragment } from "preact";
import { useRef } from "preact/hooks";
import { escapeText } from "../audit/escape.ts";
import type { WebState } from "../service/web/messages.ts";
import { Charts, totalRequests } from "./charts.tsx";
import { Details } from "./details.tsx";
import { CloseButton, Dialog } from "./dialog.tsx";
import { KEYS } from "./keys.ts";
import { type PageState, VERDICT_CHOICES, type View } from "./page-state.ts";
import { RecordList } from "./record-list.tsx";
import { brief } from "./text.ts";
import { Timeline } from "./timeline.tsx";
import { Tree } from "./tree.tsx";

/** What a reader can do besides choosing what to see. */
export interface Actions {
  /** Runs what changes the state, then draws it. */
  act(change: () => void): void;
  flipTheme(): void;
  /** Takes the token that the reader gave. */
  start(token: string): void;
}

interface AppProps {
  readonly state: PageState;
  readonly actions: Actions;
  readonly now: number;
}

const LINK_TEXTS = {
  connecting: "connecting",
  live: "live",
  away: "reconnecting…",
  refused: "token refused",
} as const;

export function App({ state, actions, now }: AppProps) {
  const { act } = actions;
  const { view } = state;
  const running = [...state.model.sandboxes.values()].filter(({ ended }) => ended === undefined).length;
  return (
    <div id="page" data-view={view}>
      <header>
        <h1>
          <img src="icon.svg" alt="" width="24" height="24" /> nix-broker
        </h1>
        <p id="link" role="status" data-state={state.link} title={`nix-broker ${state.version}`}>
          {LINK_TEXTS[state.link]}
        </p>
        <Tiles state={state} running={running} />
        <div class="buttons">
          <button
            type="button"
            id="theme"
            aria-label="Dark or light (t)"
            title="Dark or light (t)"
            onClick={actions.flipTheme}
          >
            ◐
          </button>
          <button
            type="button"
            id="help-button"
            aria-label="Keys (?)"
            title="Keys (?)"
            onClick={() =>
              act(() => {
                state.help = true;
              })
            }
          >
            ?
          </button>
        </div>
      </header>
      <Charts history={state.history} />
      <main>
        <section id="sandboxes" class="pane" aria-label="Sandboxes">
          <h2>
            Sandboxes{" "}
            <span class="count" id="sandbox-count">
              {state.history.length > 0 && running}
            </span>
          </h2>
          <Tree model={state.model} chosen={state.chosen} now={now} />
        </section>
        <section id="work" class="pane">
          <Tabs state={state} act={act} />
          <Filters state={state} act={act} />
          <RecordList
            id="denials"
            label="Denials"
            rows={state.denials}
            empty="Nothing was denied."
            hidden={view !== "denials"}
          />
          <RecordList
            id="requests"
            label="Requests"
            rows={state.requests}
            empty="No requests yet, or none that match."
            hidden={view !== "requests"}
          />
          <Timeline
            sandbox={state.chosenSandbox}
            records={state.chosenRecords}
            hidden={view !== "timeline"}
            now={now}
          />
        </section>
      </main>
      <Dialogs state={state} actions={actions} />
    </div>
  );
}

type Tile = readonly [name: string, value: string, tone?: string | undefined];

function auditTile({ audit }: WebState): Tile[] {
  return audit.error === null ? [] : [["audit", escapeText(audit.error), "deny"]];
}

function Tiles({ state, running }: { readonly state: PageState; readonly running: number }) {
  const now = state.history.at(-1);
  if (now === undefined) return <dl id="tiles" />;
  const tiles: readonly Tile[] = [
    ["sandboxes", String(running)],
    ["builds running", String(now.builds.running)],
    ["built", brief(now.builds.succeeded)],
    ["failed", brief(now.builds.failed), now.builds.failed > 0 ? "warn" : undefined],
    ["requests", brief(totalRequests(now))],
    ["denied", brief(now.requests.deny), now.requests.deny > 0 ? "deny" : undefined],
    ["records", brief(now.audit.head)],
    ...auditTile(now),
  ];
  return (
    <dl id="tiles">
      {tiles.map(([name, value, tone]) => (
        <div key={name} data-tone={tone}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

interface PartProps {
  readonly state: PageState;
  readonly act: Actions["act"];
}

function Tabs({ state, act }: PartProps) {
  const tab = (view: View, name: string, count?: number) => (
    <button
      type="button"
      role="tab"
      data-view={view}
      class={view === "sandboxes" ? "narrow" : undefined}
      aria-selected={state.view === view}
      onClick={() =>
        act(() => {
          state.inTree = false;
          state.view = view;
        })
      }
    >
      {name}
      {count !== undefined && (
        <>
          {" "}
          <span class="count" id={view === "denials" ? "denial-count" : "request-count"}>
            {count > 0 && brief(count)}
          </span>
        </>
      )}
    </button>
  );
  return (
    <div id="tabs" role="tablist" aria-label="Views">
      {tab("denials", "Denials", state.denials.rows.length)}
      {tab("requests", "Requests", state.requests.rows.length)}
      {tab("timeline", "Timeline")}
      {tab("sandboxes", "Sandboxes")}
    </div>
  );
}

function Filters({ state, act }: PartProps) {
  return (
    <div id="filters" hidden={state.list === undefined}>
      <input
        id="search"
        type="search"
        placeholder="Search: path, operation, reason, sandbox…  (/)"
        aria-label="Search"
        autocomplete="off"
        spellcheck={false}
        value={state.search}
        onInput={({ currentTarget }) => act(() => state.setSearch(currentTarget.value))}
      />
      <fieldset id="verdicts" aria-label="Verdict" hidden={state.view !== "requests"}>
        {VERDICT_CHOICES.map((verdict) => (
          <button
            key={verdict}
            type="button"
            data-verdict={verdict}
            aria-pressed={state.verdict === verdict}
            onClick={() => act(() => state.setVerdict(verdict))}
          >
            {verdict || "all"}
          </button>
        ))}
      </fieldset>
      <button
        type="button"
        id="only"
        hidden={state.chosen === undefined}
        aria-pressed={state.only}
        onClick={() => act(() => state.toggleOnly())}
      >
        {state.only ? "only this sandbox ✕" : "only the chosen sandbox"}
      </button>
    </div>
  );
}

function Dialogs({ state, actions: { act, start } }: Omit<AppProps, "now">) {
  const token = useRef<HTMLInputElement>(null);
  return (
    <>
      <Dialog
        id="details"
        label="Record"
        open={state.details !== undefined}
        onClose={() =>
          act(() => {
            state.details = undefined;
          })
        }
      >
        {state.details !== undefined && (
          <Details record={state.details} showSandbox={(id) => act(() => state.showTimelineOf(id))} />
        )}
      </Dialog>
      <Dialog
        id="help"
        label="Keys"
        open={state.help}
        onClose={() =>
          act(() => {
            state.help = false;
          })
        }
      >
        <h2>Keys</h2>
        <dl>
          {KEYS.map(([keys, what]) => (
            <Fragment key={what}>
              <dt>
                {keys.map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </dt>
              <dd>{what}</dd>
            </Fragment>
          ))}
        </dl>
        <CloseButton />
      </Dialog>
      <Dialog id="gate" label="Token" open={state.gate} onClose={() => act(() => {})}>
        <form
          method="dialog"
          onSubmit={() => {
            const given = token.current?.value.trim() ?? "";
            if (given !== "") start(given);
          }}
        >
          <h2>A token is needed</h2>
          <p>
            It is the first line of the file that <code>web.token_file</code> names, by default{" "}
            <code>/var/lib/nix-broker/web-token</code>, which root and the service can read.
          </p>
          <input
            id="token"
            type="password"
            autocomplete="off"
            aria-label="Token"
            placeholder="Token"
            ref={token}
          />
          <button type="submit">Open</button>
        </form>
      </Dialog>
    </>
  );
}
